"""Settings with their history; what operators say of nodes; ended upgrades; cohorts that are drained."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

ATTRIBUTES = ("provider", "region", "address")


def upgrade() -> None:
    _settings()
    with op.batch_alter_table("nodes") as table:
        table.add_column(
            sa.Column("class", sa.String(16), nullable=False, server_default="gateway")
        )
        table.add_column(sa.Column("labels", sa.JSON(), nullable=False, server_default="{}"))
        for name in ATTRIBUTES:
            table.add_column(sa.Column(name, sa.String(64), nullable=False, server_default=""))
    _upgrades()
    op.create_table(
        "cohort_drains",
        sa.Column("queue", sa.String(64), primary_key=True),
        sa.Column("build_id", sa.String(64), primary_key=True),
        sa.Column("at", sa.Float(), nullable=False),
        sa.Column("who", sa.String(64), nullable=False),
    )


def _settings() -> None:
    op.create_table(
        "settings",
        sa.Column("key", sa.String(64), primary_key=True),
        sa.Column("value", sa.Text(), nullable=False),
        sa.Column("at", sa.Float(), nullable=False),
        sa.Column("who", sa.String(64), nullable=False),
    )
    op.create_table(
        "setting_history",
        sa.Column("id", sa.Integer(), primary_key=True, autoincrement=True),
        sa.Column("at", sa.Float(), nullable=False),
        sa.Column("who", sa.String(64), nullable=False),
        sa.Column("key", sa.String(64), nullable=False),
        sa.Column("before", sa.Text()),
        sa.Column("after", sa.Text()),
    )
    op.create_index("setting_history_by_key", "setting_history", ["key"])


def _upgrades() -> None:
    op.create_table(
        "node_upgrades",
        sa.Column("node", sa.String(32), primary_key=True),
        sa.Column("order", sa.String(64), primary_key=True),
        sa.Column("began", sa.Float(), primary_key=True),
        sa.Column("ended", sa.Float()),
        sa.Column("body", sa.JSON(), nullable=False),
    )
    op.create_table(
        "agent_versions",
        sa.Column("node", sa.String(32), primary_key=True),
        sa.Column("at", sa.Float(), primary_key=True),
        sa.Column("version", sa.String(64), nullable=False),
    )


def downgrade() -> None:
    for table in (
        "cohort_drains",
        "agent_versions",
        "node_upgrades",
        "setting_history",
        "settings",
    ):
        op.drop_table(table)
    with op.batch_alter_table("nodes") as nodes:
        for name in ("class", "labels", *ATTRIBUTES):
            nodes.drop_column(name)
