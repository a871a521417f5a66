"""Who is signed in to the admin page, and links that sign somebody in once."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    for table in ("page_sessions", "page_links"):
        op.create_table(
            table,
            sa.Column("secret_sha256", sa.String(64), primary_key=True),
            sa.Column("token", sa.String(8), nullable=False),
            sa.Column("created", sa.Float(), nullable=False),
            sa.Column("expires", sa.Float(), nullable=False),
        )
    op.create_index("page_sessions_by_token", "page_sessions", ["token"])


def downgrade() -> None:
    op.drop_index("page_sessions_by_token", "page_sessions")
    op.drop_table("page_links")
    op.drop_table("page_sessions")
