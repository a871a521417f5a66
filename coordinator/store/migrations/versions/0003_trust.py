"""Sites and what tokens fix; releases live in the TUF repository from here on."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    with op.batch_alter_table("nodes") as table:
        table.add_column(sa.Column("site", sa.String(32), nullable=False, server_default=""))
    with op.batch_alter_table("join_tokens") as table:
        table.add_column(sa.Column("name", sa.String(32)))
        table.add_column(sa.Column("role", sa.String(16)))
        table.add_column(sa.Column("site", sa.String(32)))
        table.add_column(
            sa.Column("replaces", sa.Boolean(), nullable=False, server_default=sa.false())
        )
    op.drop_table("releases")


def downgrade() -> None:
    op.create_table(
        "releases",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("name", sa.String(64), nullable=False, unique=True),
        sa.Column("envelope", sa.Text(), nullable=False),
        sa.Column("created", sa.Float(), nullable=False),
    )
    with op.batch_alter_table("join_tokens") as table:
        for name in ("name", "role", "site", "replaces"):
            table.drop_column(name)
    with op.batch_alter_table("nodes") as table:
        table.drop_column("site")
