"""Alerts with their history, silences and what is still to be delivered; what evidence needs of each moment."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    op.create_table(
        "alerts",
        sa.Column("id", sa.String(8), primary_key=True),
        sa.Column("fingerprint", sa.String(16), nullable=False),
        sa.Column("rule", sa.String(40), nullable=False),
        sa.Column("subject", sa.String(64), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("seen", sa.Float, nullable=False),
        sa.Column("ended", sa.Float),
        sa.Column("body", sa.JSON, nullable=False),
    )
    op.create_index("alerts_by_state", "alerts", ["state", "ended"])
    op.create_table(
        "alert_events",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("at", sa.Float, nullable=False),
        sa.Column("alert", sa.String(8), nullable=False),
        sa.Column("change", sa.String(16), nullable=False),
        sa.Column("severity", sa.String(16), nullable=False),
        sa.Column("by", sa.String(64), nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("alert_events_by_alert", "alert_events", ["alert"])
    op.create_table(
        "alert_silences",
        sa.Column("id", sa.String(8), primary_key=True),
        sa.Column("ends", sa.Float, nullable=False),
        sa.Column("body", sa.JSON, nullable=False),
    )
    op.create_table(
        "alert_deliveries",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("event", sa.String(32), nullable=False),
        sa.Column("channel", sa.String(32), nullable=False),
        sa.Column("alert", sa.String(8), nullable=False),
        sa.Column("change", sa.String(16), nullable=False),
        sa.Column("queued", sa.Float, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("error", sa.Text, nullable=False),
        sa.Column("body", sa.JSON, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("alert_deliveries_by_channel", "alert_deliveries", ["channel", "id"])
    op.create_table(
        "rosters",
        sa.Column("fleet_version", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("epoch", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("at", sa.Float, nullable=False),
        sa.Column("raw", sa.Text, nullable=False),
    )
    op.create_table(
        "readiness_notes",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("at", sa.Float, nullable=False),
        sa.Column("node", sa.String(32), nullable=False),
        sa.Column("rollout", sa.String(32), nullable=False),
        sa.Column("body", sa.JSON, nullable=False),
    )
    op.create_index("readiness_notes_by_rollout", "readiness_notes", ["rollout"])


def downgrade() -> None:
    for table in (
        "readiness_notes",
        "rosters",
        "alert_deliveries",
        "alert_silences",
        "alert_events",
        "alerts",
    ):
        op.drop_table(table)
