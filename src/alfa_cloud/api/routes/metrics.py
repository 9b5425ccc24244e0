"""Figures for Prometheus."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import Response

from alfa_cloud.api.jsonapi.negotiation import Media
from alfa_cloud.api.routing import ApiRouter
from alfa_cloud.api.state import Services, ServicesDep
from alfa_cloud.api.streams import offers
from alfa_cloud.services import figures
from alfa_cloud.services.figures import Figures
from alfa_cloud.telemetry import METRICS_TYPE, exposition

router = ApiRouter(tags=["service"])

WORKER_SEEN_S = 60
Values = dict[tuple[tuple[str, str], ...], float]


@router.get("/metrics", response_model=None)
async def read_metrics(services: ServicesDep, media: Annotated[Media, offers(Media.TEXT)]) -> Any:
    """Figures in Prometheus' text format. Requests are those of the process that answers; everything else is the whole
    service's, so ask one process for that, and each process (by its own address) for its requests.
    """
    del media
    async with services.sessions() as session:
        found = await figures.take(session, worker_seen_s=WORKER_SEEN_S)
    return Response(exposition({**of_service(found), **of_process(services)}), media_type=METRICS_TYPE)


def of_service(found: Figures) -> Mapping[tuple[str, str], Values]:
    """The gauges of the service as a whole."""
    return {
        ("alfa_operations", "Operations that are kept, by kind and state."): {
            (("kind", kind), ("state", state)): count for (kind, state), count in found.operations.items()
        },
        ("alfa_queue_age_seconds", "How long the oldest queued operation has waited; 0 where none waits."): {
            (): found.queue_age_s
        },
        ("alfa_clients", "Clients that are to answer, by what the last probe of each found."): {
            (("probe", name),): count for name, count in found.clients.items()
        },
        ("alfa_server_reachable", "1 where a server was reached at the last look, else 0."): {
            (("server", name),): float(bool(there)) for name, there in found.reachable.items()
        },
        ("alfa_backups_damaged", "Back-ups whose last look found something wrong."): {(): found.damaged_backups},
        ("alfa_workers", "Worker processes that are alive."): {(): found.workers},
    }


def of_process(services: Services) -> Mapping[tuple[str, str], Values]:
    """The gauges of the process that answers."""
    return {
        ("alfa_database_connections", "Connections to the database that are in use by this process."): {
            (): figures.connections_in_use(services.sessions)
        },
        ("alfa_ssh_connections", "Connections to servers that this process holds."): {(): services.pool.connections},
    }
