"""Nodes of a cluster on this machine that nobody else gets into: on the loopback interface, with TLS.

Light to import, since every worker does so first: no torch.
"""

from __future__ import annotations

import secrets
from typing import Any

from distributed import Nanny, Scheduler, Security, SpecCluster, Worker

from labelstore.pipelines.dashboard import Door, with_token

_LOOPBACK = "127.0.0.1"


class LocalScheduler(Scheduler):
    """A scheduler, in this process, whose dashboard asks for a token."""

    def start_http_server(self, *arguments: Any, **options: Any) -> None:
        """Put a door before what Dask serves."""
        Scheduler.start_http_server(self, *arguments, **options)
        self.dashboard_token = secrets.token_urlsafe(32)
        server: Any = self.http_server
        server.request_callback = Door(self.http_application, self.dashboard_token, server.port)


class LocalWorker(Worker):
    """A worker that serves no HTTP: it would be counts that the scheduler's dashboard has as well, on one more open port."""

    def start_http_server(self, *arguments: Any, **options: Any) -> None:
        """Serve nothing."""


class LocalCluster(SpecCluster):
    """A cluster of `LocalScheduler` and workers whose certificate exists only here and in their processes' memory."""

    def __init__(self, **options: Any) -> None:
        SpecCluster.__init__(self, **options)

    @property
    def dashboard_link(self) -> str:
        """The address of the dashboard, with its token."""
        link: str = super().dashboard_link
        scheduler: Any = self.scheduler
        return with_token(link, scheduler.dashboard_token) if link else link


def scheduler_spec(security: Security, dashboard_address: str, **options: Any) -> dict[str, Any]:
    """Return how `SpecCluster` makes the scheduler."""
    return {"cls": LocalScheduler, "options": {**_place(security), "dashboard_address": dashboard_address, **options}}


def worker_spec(security: Security, **options: Any) -> dict[str, Any]:
    """Return how `SpecCluster` makes a worker's nanny, and that the worker."""
    return {"cls": Nanny, "options": {**_place(security), "worker_class": LocalWorker, **options}}


def _place(security: Security) -> dict[str, Any]:
    return {"host": _LOOPBACK, "port": 0, "protocol": "tls", "security": security}
