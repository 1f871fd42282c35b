"""`/api/metrics`: requests, seconds, labels and memory, as Prometheus collects them."""

from __future__ import annotations

import time
from typing import Any

import prometheus_client as prometheus
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from labelstore.cli.web.endpoints import Call, Endpoint
from labelstore.cli.web.site import Site

TEXT = prometheus.CONTENT_TYPE_LATEST.split(";")[0]
_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10)


class Counters:
    """What is counted of a server, in a registry of its own."""

    def __init__(self, site: Site) -> None:
        self._registry = prometheus.CollectorRegistry()
        self._requests: Any = prometheus.Counter("labelstore_requests", "Requests", ["path", "status"], registry=self._registry)
        self._seconds: Any = prometheus.Histogram(
            "labelstore_request_seconds", "Until the answer is out", ["path"], buckets=_BUCKETS, registry=self._registry
        )
        gauges = {
            "labelstore_labels_served": ("Soft labels pooled", lambda: site.labels_served),
            "labelstore_rows_surveyed": ("Rows looked at by the survey", lambda: site.surveyor.looked_at),
        }
        for name, (about, value) in gauges.items():
            gauge: Any = prometheus.Gauge(name, about, registry=self._registry)
            gauge.set_function(value)
        prometheus.ProcessCollector(registry=self._registry)

    def count(self, path: str, status: int, seconds: float) -> None:
        """Count an answer."""
        self._requests.labels(path, str(status)).inc()
        self._seconds.labels(path).observe(seconds)

    def text(self) -> bytes:
        """Return all of it."""
        return prometheus.generate_latest(self._registry)


class Counting:
    """Middleware that counts what is answered, by path; paths that nothing answers are one."""

    def __init__(self, app: ASGIApp, counters: Counters, paths: frozenset[str]) -> None:
        self._app, self._counters, self._paths = app, counters, paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and count its answer."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status = time.perf_counter(), 500

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, noting)
        finally:
            path = scope["path"] if scope["path"] in self._paths else "other"
            self._counters.count(path, status, time.perf_counter() - began)


def metrics_endpoint(counters: Counters) -> Endpoint:
    """Return the endpoint that shows them."""

    def show(_: Call) -> Response:
        return Response(counters.text(), media_type=prometheus.CONTENT_TYPE_LATEST)

    return Endpoint("/api/metrics", "Counters for Prometheus.", show, answer=TEXT)
