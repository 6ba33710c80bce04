"""The `payments` table, under the name that existing imports use."""

from tillgate.embed import Base, PaymentTransaction, run_async_migrations, run_migrations

__all__ = ["Base", "PaymentTransaction", "run_async_migrations", "run_migrations"]
