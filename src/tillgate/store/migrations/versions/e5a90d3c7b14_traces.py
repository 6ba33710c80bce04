"""Traces."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "e5a90d3c7b14"
down_revision = "b3f1c07a9e52"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "traces",
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("about", sa.Text(), nullable=False),
        sa.Column("context", sa.Text(), nullable=False),
        sa.Column("kept_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("subject", "about", name=op.f("pk_traces")),
        sqlite_with_rowid=False,
    )
    op.create_index(op.f("ix_traces_kept_at"), "traces", ["kept_at"], unique=False)
