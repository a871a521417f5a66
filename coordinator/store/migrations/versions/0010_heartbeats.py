"""When a node was heard, apart from what it said: each heartbeat writes the one, and few the other."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    op.create_table(
        "heartbeats",
        sa.Column("name", sa.String(32), primary_key=True),
        sa.Column("at", sa.Float(), nullable=False),
    )
    op.execute(
        "INSERT INTO heartbeats (name, at) SELECT name, heard FROM nodes WHERE heard IS NOT NULL"
    )
    with op.batch_alter_table("nodes") as table:
        table.drop_column("heard")


def downgrade() -> None:
    with op.batch_alter_table("nodes") as table:
        table.add_column(sa.Column("heard", sa.Float()))
    op.execute(
        "UPDATE nodes SET heard = (SELECT at FROM heartbeats WHERE heartbeats.name = nodes.name)"
    )
    op.drop_table("heartbeats")
