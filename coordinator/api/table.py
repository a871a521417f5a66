"""The whole API: every resource whose routes are served and described."""

from __future__ import annotations

from functools import cache
from typing import Any

from coordinator import __version__
from coordinator.api.about import AboutApi
from coordinator.api.alerts import AlertsApi
from coordinator.api.attestations import AttestationsApi
from coordinator.api.audit import AuditApi
from coordinator.api.capabilities import CapabilitiesApi
from coordinator.api.cluster import ClusterApi
from coordinator.api.cohorts import CohortsApi
from coordinator.api.events import EventsApi
from coordinator.api.evidence import EvidenceApi
from coordinator.api.joining import Joining
from coordinator.api.nodes import NodesApi
from coordinator.api.openapi import describe
from coordinator.api.operating import OperatingApi
from coordinator.api.operators import OperatorsApi
from coordinator.api.orders import OrdersApi
from coordinator.api.pagelinks import PageLinksApi
from coordinator.api.reds import RedsApi
from coordinator.api.releases import ReleasesApi
from coordinator.api.rollouts import RolloutsApi
from coordinator.api.routes import Resource
from coordinator.api.settings import SettingsApi
from coordinator.api.sync import SyncApi
from coordinator.api.traffic import TrafficApi
from coordinator.api.trust import TrustApi

RESOURCES: tuple[type[Resource], ...] = (
    AboutApi,
    ClusterApi,
    TrustApi,
    Joining,
    SyncApi,
    ReleasesApi,
    RolloutsApi,
    AttestationsApi,
    TrafficApi,
    CapabilitiesApi,
    OrdersApi,
    RedsApi,
    OperatorsApi,
    PageLinksApi,
    AlertsApi,
    EvidenceApi,
    EventsApi,
    AuditApi,
    SettingsApi,
    NodesApi,
    CohortsApi,
    OperatingApi,
)


@cache
def description() -> dict[str, Any]:
    """One for everybody, and not to be changed: what is described stands in the code."""
    return describe(RESOURCES, __version__)
