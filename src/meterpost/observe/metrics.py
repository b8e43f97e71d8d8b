"""Counters, gauges and histograms of each process.

Base units (seconds, bytes, events); names begin with the process, so that the edge can show the
engine's beside its own. Labels are words of ours with few values: never a customer, a subject,
a source or an id.
"""

from __future__ import annotations

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)

# When a counter was created says nothing here, and doubles the page.
disable_created_metrics()  # type: ignore[no-untyped-call]

_FAST_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_SLOW_S = (0.005, 0.025, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 1800.0)


class EngineMetrics:
    """What the engine counts: its jobs and the operations asked of it."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry(auto_describe=True)
        self.job_runs = Counter(
            "meterpost_engine_job_rounds",
            "Rounds of a job; outcome: worked, idle, transient, failed, error.",
            ["job", "outcome"],
            registry=self.registry,
        )
        self.job_seconds = Histogram(
            "meterpost_engine_job_round_seconds",
            "How long a round of a job took that had work to do.",
            ["job"],
            buckets=_SLOW_S,
            registry=self.registry,
        )
        self.job_failed = Gauge(
            "meterpost_engine_job_failed",
            "1 while a job cannot go on without a person.",
            ["job"],
            registry=self.registry,
        )
        self.operations = Counter(
            "meterpost_engine_operations",
            "Operations asked for through the local socket, by the code they ended with.",
            ["operation", "outcome"],
            registry=self.registry,
        )
        self.operation_seconds = Histogram(
            "meterpost_engine_operation_seconds",
            "How long an operation took.",
            ["operation"],
            buckets=_SLOW_S,
            registry=self.registry,
        )
        self.connections = Gauge(
            "meterpost_engine_connections",
            "Clients connected to the local socket.",
            registry=self.registry,
        )
        self.drained = Gauge(
            "meterpost_engine_drained_sequence",
            "The last journal sequence in the event store.",
            registry=self.registry,
        )
        ProcessCollector(namespace="meterpost_engine", registry=self.registry)


class EdgeMetrics:
    """What the edge counts: requests, bytes in flight. Events are counted in the database."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry(auto_describe=True)
        self.requests = Counter(
            "meterpost_edge_requests",
            "HTTP requests by route template and status class (2xx, 4xx, …).",
            ["route", "status"],
            registry=self.registry,
        )
        self.request_seconds = Histogram(
            "meterpost_edge_request_seconds",
            "How long an HTTP request took to be answered.",
            ["route"],
            buckets=_FAST_S,
            registry=self.registry,
        )
        self.in_flight_bytes = Gauge(
            "meterpost_edge_in_flight_bytes",
            "Bytes of event requests being handled.",
            registry=self.registry,
        )
        self.events_behind = Gauge(
            "meterpost_edge_events_behind",
            "Accepted events that the engine has not stored yet.",
            registry=self.registry,
        )
        ProcessCollector(namespace="meterpost_edge", registry=self.registry)


def exposition(registry: CollectorRegistry) -> bytes:
    """The registry in Prometheus' text format."""
    return generate_latest(registry)
