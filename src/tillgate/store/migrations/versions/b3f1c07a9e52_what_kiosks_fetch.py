"""What kiosks fetch."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "b3f1c07a9e52"
down_revision = "d2b1f1bb4eaf"
branch_labels = None
depends_on = None

_FETCHED = sa.text("live_of IS NOT NULL AND provider = 'mobypay'")


def upgrade() -> None:
    op.create_index(
        "ix_attempts_fetched",
        "attempts",
        ["account_id", "id"],
        unique=False,
        sqlite_where=_FETCHED,
        postgresql_where=_FETCHED,
    )


def downgrade() -> None:
    op.drop_index("ix_attempts_fetched", table_name="attempts")
