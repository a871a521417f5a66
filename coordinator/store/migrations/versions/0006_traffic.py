"""Desired shares of traffic with their history, freezes of all of them, and snapshots."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.create_table(
        "traffic",
        sa.Column("node", sa.String(32), primary_key=True),
        sa.Column("id", sa.String(48), nullable=False),
        sa.Column("percent", sa.Integer(), nullable=False),
        sa.Column("since", sa.Float(), nullable=False),
        sa.Column("by", sa.String(64), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("pinned", sa.Boolean(), nullable=False),
        sa.Column("release", sa.String(64)),
        sa.Column("upgrade", sa.String(48), nullable=False),
        sa.Column("before", sa.Integer(), nullable=False),
        sa.Column("steady", sa.Float()),
    )
    op.create_table(
        "traffic_history",
        sa.Column("number", sa.Integer(), primary_key=True, autoincrement=True),
        sa.Column("at", sa.Float(), nullable=False),
        sa.Column("node", sa.String(32), nullable=False),
        sa.Column("percent", sa.Integer()),
        sa.Column("by", sa.String(64), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("rollout", sa.String(32), nullable=False),
        sa.Column("id", sa.String(48), nullable=False),
    )
    op.create_index("traffic_history_by_rollout", "traffic_history", ["rollout"])
    op.create_table(
        "traffic_snapshots",
        sa.Column("name", sa.String(64), primary_key=True),
        sa.Column("created", sa.Float(), nullable=False),
        sa.Column("rollout", sa.String(32), nullable=False),
        sa.Column("body", sa.JSON(), nullable=False),
    )


def downgrade() -> None:
    op.drop_table("traffic_snapshots")
    op.drop_index("traffic_history_by_rollout", "traffic_history")
    op.drop_table("traffic_history")
    op.drop_table("traffic")
