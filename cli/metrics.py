"""A run in numbers that Prometheus collects."""

from __future__ import annotations

import time
from typing import Any

from labelstore.errors import MissingExtraError, OptionError
from labelstore.pipelines.observer import Observer


class Metrics(Observer):
    """Counts a run's rows in Prometheus' registry, and serves it over HTTP.

    ``labelstore_rows`` (by ``status``: done, failed), ``labelstore_rows_planned``, ``labelstore_rows_already``,
    ``labelstore_images_per_second`` (of the run so far), ``labelstore_bytes_written``, ``labelstore_run_start_seconds``.
    Beside them are what the registry has of this process, and Dask's own endpoint (``/metrics`` of the dashboard) has the
    cluster's.

    Parameters
    ----------
    port
        0: none is served.

    Raises
    ------
    MissingExtraError
        prometheus_client is not installed.
    OptionError
        The port is taken.
    """

    def __init__(self, port: int, host: str = "127.0.0.1") -> None:
        try:
            import prometheus_client as prometheus
        except ImportError as error:
            raise MissingExtraError("--metrics-port needs prometheus-client: pip install 'labelstore[metrics]'") from error
        self._registry = prometheus.CollectorRegistry()
        self._rows: Any = prometheus.Gauge("labelstore_rows", "Rows of this run", ["status"], registry=self._registry)
        self._planned: Any = prometheus.Gauge("labelstore_rows_planned", "Rows of the store", registry=self._registry)
        self._already: Any = prometheus.Gauge("labelstore_rows_already", "Rows committed before", registry=self._registry)
        self._bytes: Any = prometheus.Gauge("labelstore_bytes_written", "Bytes of committed shards", registry=self._registry)
        self._rate: Any = prometheus.Gauge("labelstore_images_per_second", "Of the run so far", registry=self._registry)
        self._began = time.monotonic()
        self._start: Any = prometheus.Gauge("labelstore_run_start_seconds", "When the run began", registry=self._registry)
        prometheus.ProcessCollector(registry=self._registry)
        try:
            self._server, self._thread = prometheus.start_http_server(port, host, registry=self._registry)
        except OSError as error:
            raise OptionError(f"--metrics-port {port}: cannot be used: {error.strerror}") from error

    @property
    def port(self) -> int:
        """The port that is served."""
        return int(self._server.server_port)

    def plan(self, total: int, already: int) -> None:
        """See `Observer.plan`."""
        self._planned.set(total)
        self._already.set(already)
        self._start.set_to_current_time()
        self._began = time.monotonic()
        self.rows(0, 0)

    def rows(self, done: int, failed: int) -> None:
        """See `Observer.rows`."""
        self._rows.labels("done").set(done)
        self._rows.labels("failed").set(failed)
        self._rate.set((done + failed) / max(time.monotonic() - self._began, 1e-3))

    def written(self, num_bytes: int) -> None:
        """See `Observer.written`."""
        self._bytes.set(num_bytes)

    def close(self) -> None:
        """Serve no more."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
