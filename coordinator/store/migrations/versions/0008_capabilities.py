"""The index of capabilities, and the runs that publish and unpublish them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    op.create_table(
        "capability_index",
        sa.Column("name", sa.String(32), primary_key=True),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("since", sa.Float(), nullable=False),
        sa.Column("body", sa.JSON(), nullable=False),
    )
    op.create_table(
        "capability_runs",
        sa.Column("id", sa.String(8), primary_key=True),
        sa.Column("name", sa.String(32), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("created", sa.Float(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("request", sa.String(64), unique=True),
        sa.Column("body", sa.JSON(), nullable=False),
    )
    op.create_index("capability_runs_by_name", "capability_runs", ["name", "created"])


def downgrade() -> None:
    op.drop_index("capability_runs_by_name", "capability_runs")
    op.drop_table("capability_runs")
    op.drop_table("capability_index")
