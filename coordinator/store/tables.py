"""The coordinator's tables. Times are seconds since the epoch; JSON columns hold wire models."""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    Boolean,
    Column,
    Float,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
)

metadata = MetaData()

meta = Table("meta", metadata, Column("key", String(64), primary_key=True), Column("value", Text))

nodes = Table(
    "nodes",
    metadata,
    Column("name", String(32), primary_key=True),
    Column("role", String(16), nullable=False),
    Column("site", String(32), nullable=False, default=""),
    Column("key", Text, nullable=False),
    Column("joined", Float, nullable=False),
    Column("revoked", Boolean, nullable=False, default=False),
    Column("report", JSON),
    Column("class", String(16), nullable=False, default="gateway"),
    Column("labels", JSON, nullable=False, default=dict),
    Column("provider", String(64), nullable=False, default=""),
    Column("region", String(64), nullable=False, default=""),
    Column("address", String(64), nullable=False, default=""),
)

heartbeats = Table(
    "heartbeats",
    metadata,
    Column("name", String(32), primary_key=True),
    Column("at", Float, nullable=False),
)
"""When each node was heard last. Apart from its report, which is a page of its own to write and seldom another."""

join_tokens = Table(
    "join_tokens",
    metadata,
    Column("secret_sha256", String(64), primary_key=True),
    Column("expires", Float, nullable=False),
    Column("used_by", String(32)),
    Column("name", String(32)),
    Column("role", String(16)),
    Column("site", String(32)),
    Column("replaces", Boolean, nullable=False, default=False),
)

rollouts = Table(
    "rollouts",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("created", Float, nullable=False),
    Column("state", String(16), nullable=False),
    Column("generation", Integer, nullable=False),
    Column("body", JSON, nullable=False),
)

messages = Table(
    "messages",
    metadata,
    Column("sha256", String(64), primary_key=True),
    Column("key", String(96), nullable=False, unique=True),
    Column("origin", String(32), nullable=False),
    Column("type", String(16), nullable=False),
    Column("ref", String(96), nullable=False),
    Column("raw", Text, nullable=False),
    Column("at", Float, nullable=False),
    Index("messages_by_type", "type", "ref"),
)

history = Table(
    "history",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("at", Float, nullable=False),
    Column("rollout", String(32), nullable=False),
    Column("node", String(32), nullable=False),
    Column("state", String(16), nullable=False),
    Column("reason", Text, nullable=False),
    Column("who", String(64), nullable=False, default=""),
    Index("history_by_rollout", "rollout"),
)

operator_tokens = Table(
    "operator_tokens",
    metadata,
    Column("id", String(8), primary_key=True),
    Column("name", String(32), nullable=False),
    Column("role", String(16), nullable=False),
    Column("secret_sha256", String(64), nullable=False),
    Column("created", Float, nullable=False),
    Column("created_by", String(64), nullable=False),
    Column("expires", Float),
    Column("revoked", Float),
    Column("last_used", Float),
)

audit = Table(
    "audit",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("at", Float, nullable=False),
    Column("who", String(64), nullable=False),
    Column("role", String(16), nullable=False),
    Column("address", String(64), nullable=False),
    Column("action", String(128), nullable=False),
    Column("subject", String(128), nullable=False),
    Column("status", Integer, nullable=False),
    Column("detail", Text, nullable=False),
    Column("prev", String(64), nullable=False),
    Column("sha256", String(64), nullable=False),
)
