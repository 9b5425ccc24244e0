"""What the processes say about themselves: one JSON object a line on standard error, and figures for Prometheus."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from typing import Final

import structlog
from prometheus_client import CollectorRegistry, Gauge, Histogram, disable_created_metrics, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

METRICS_TYPE: Final = CONTENT_TYPE_PLAIN_0_0_4
disable_created_metrics()  # type: ignore[no-untyped-call]  # a second row for each, which nobody asks for
REGISTRY: Final = CollectorRegistry()
"""What this process counts."""
REQUEST_SECONDS: Final = Histogram(
    "alfa_http_request_seconds",
    "Requests that this process answered, and how long they took.",
    ("method", "route", "status"),
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 15, 60),
    registry=REGISTRY,
)


def exposition(gauges: Mapping[tuple[str, str], Mapping[tuple[tuple[str, str], ...], float]]) -> bytes:
    """What this process counts, and gauges as they are now, in Prometheus' text format.

    Args:
        gauges: by (name, description); the values by labels as (name, value).
    """
    moment = CollectorRegistry()
    for (name, description), values in gauges.items():
        names = [label for label, _ in next(iter(values), ())]
        gauge = Gauge(name, description, names, registry=moment)
        for labels, value in values.items():
            (gauge.labels(**dict(labels)) if labels else gauge).set(value)
    return generate_latest(REGISTRY) + generate_latest(moment)


def configure_logging(level: str) -> None:
    """Log records of this service and of its libraries leave as JSON lines with their context."""
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processor=structlog.processors.JSONRenderer(ensure_ascii=False), foreign_pre_chain=shared
        )
    )
    logging.basicConfig(handlers=[handler], level=level.upper(), force=True)
    for name in ("asyncssh", "httpx", "httpcore", "arq", "uvicorn.access"):
        logging.getLogger(name).setLevel(logging.WARNING)
