"""Runs a gateway's dialect on a host application's own SQLAlchemy session.

The host keeps its tables and its session; this package adds one table (`payments`), rules by
`tillgate.domain.dialogue.decide`, and commits the transaction's row, the host's hook and the host's own
changes together. It needs SQLAlchemy, nothing of the hub.
"""

from tillgate.embed.handler import UNHEARD, BadSettings, EmbeddedHandler
from tillgate.embed.migrate import run_async_migrations, run_migrations
from tillgate.embed.models import Base, PaymentTransaction, to_moment, to_ms, to_tiyin
from tillgate.embed.ruling import Ruling
from tillgate.embed.session import empty

__all__ = [
    "UNHEARD",
    "BadSettings",
    "Base",
    "EmbeddedHandler",
    "PaymentTransaction",
    "Ruling",
    "empty",
    "run_async_migrations",
    "run_migrations",
    "to_moment",
    "to_ms",
    "to_tiyin",
]
