"""Plans, rollbacks by release, and who changed what in a rollout's history."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    op.create_table(
        "plans",
        sa.Column("id", sa.Integer(), primary_key=True, autoincrement=True),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("made", sa.Float(), nullable=False),
        sa.Column("rollout", sa.String(32), nullable=False),
        sa.Column("body", sa.JSON(), nullable=False),
    )
    op.create_index("plans_by_hash", "plans", ["sha256"])
    op.create_table(
        "rollbacks",
        sa.Column("order_id", sa.String(64), primary_key=True),
        sa.Column("release", sa.String(64), nullable=False),
        sa.Column("node", sa.String(32), nullable=False),
        sa.Column("at", sa.Float(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
    )
    op.create_index("rollbacks_by_release", "rollbacks", ["release"])
    with op.batch_alter_table("history") as table:
        table.add_column(sa.Column("who", sa.String(64), nullable=False, server_default=""))


def downgrade() -> None:
    with op.batch_alter_table("history") as table:
        table.drop_column("who")
    op.drop_table("rollbacks")
    op.drop_table("plans")
