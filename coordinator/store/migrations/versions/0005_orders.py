"""Orders with their history, breaches and notices, and the answers that are kept by Idempotency-Key."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    _add_replays()
    _add_orders()
    op.create_table(
        "order_breaches",
        sa.Column("order", sa.String(48), primary_key=True),
        sa.Column("kind", sa.String(16), primary_key=True),
        sa.Column("node", sa.String(32), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("at", sa.Float(), nullable=False),
        sa.Column("told", sa.Float()),
    )
    op.create_table(
        "order_notices",
        sa.Column("id", sa.Integer(), primary_key=True, autoincrement=True),
        sa.Column("node", sa.String(32), nullable=False),
        sa.Column("order", sa.String(48), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("at", sa.Float(), nullable=False),
        sa.UniqueConstraint("node", "order", "kind", name="one_notice_per_breach"),
    )


def _add_replays() -> None:
    op.create_table(
        "replays",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("caller", sa.String(64), nullable=False),
        sa.Column("at", sa.Float(), nullable=False),
        sa.Column("request", sa.String(64), nullable=False),
        sa.Column("status", sa.Integer()),
        sa.Column("type", sa.String(64)),
        sa.Column("etag", sa.String(128)),
        sa.Column("body", sa.LargeBinary()),
    )
    op.create_index("replays_by_caller", "replays", ["caller", "at"])
    op.create_index("replays_by_age", "replays", ["at"])


def _add_orders() -> None:
    op.create_table(
        "orders",
        sa.Column("id", sa.String(48), primary_key=True),
        sa.Column("node", sa.String(32), nullable=False),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("created", sa.Float(), nullable=False),
        sa.Column("ended", sa.Float()),
        sa.Column("request", sa.String(64), unique=True),
        sa.Column("body", sa.JSON(), nullable=False),
        sa.Column("result", sa.Text(), nullable=False, server_default=""),
    )
    op.create_index("orders_by_state", "orders", ["state", "created"])
    op.create_table(
        "order_events",
        sa.Column("id", sa.Integer(), primary_key=True, autoincrement=True),
        sa.Column("order", sa.String(48), nullable=False),
        sa.Column("at", sa.Float(), nullable=False),
        sa.Column("who", sa.String(64), nullable=False),
        sa.Column("event", sa.String(16), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("key", sa.String(64)),
    )
    op.create_index("order_events_by_order", "order_events", ["order", "key"])


def downgrade() -> None:
    for table in ("order_notices", "order_breaches", "order_events", "orders", "replays"):
        op.drop_table(table)
