"""The whole API: every resource whose routes are served and described."""

from __future__ import annotations

from typing import Any

from coordinator import __version__
from coordinator.api.about import AboutApi
from coordinator.api.alerts import AlertsApi
from coordinator.api.audit import AuditApi
from coordinator.api.cluster import ClusterApi
from coordinator.api.joining import Joining
from coordinator.api.openapi import describe
from coordinator.api.operators import OperatorsApi
from coordinator.api.reds import RedsApi
from coordinator.api.releases import ReleasesApi
from coordinator.api.rollouts import RolloutsApi
from coordinator.api.routes import Resource
from coordinator.api.sync import SyncApi
from coordinator.api.trust import TrustApi

RESOURCES: tuple[type[Resource], ...] = (
    AboutApi,
    ClusterApi,
    TrustApi,
    Joining,
    SyncApi,
    ReleasesApi,
    RolloutsApi,
    RedsApi,
    OperatorsApi,
    AlertsApi,
    AuditApi,
)


def description() -> dict[str, Any]:
    return describe(RESOURCES, __version__)
