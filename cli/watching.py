"""Who watches a run, as the options say: a progress bar, a log of JSON, Prometheus."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console

from labelstore.cli.json_log import JsonLog
from labelstore.cli.metrics import Metrics
from labelstore.cli.progress import ProgressBar
from labelstore.errors import LabelStoreError
from labelstore.pipelines.observer import Observer, Observers


@contextmanager
def watched(
    console: Console, log_format: str, metrics_port: int | None, doing: str
) -> Iterator[tuple[Observer, JsonLog | None]]:
    """Yield what hears of a run, and the log of JSON if there is one, which hears of an error that ends it too."""
    with contextlib.ExitStack() as stack:
        log = JsonLog() if log_format == "json" else None
        observers: list[Observer] = [log or stack.enter_context(ProgressBar(console, doing))]
        try:
            if metrics_port is not None:
                metrics = Metrics(metrics_port)
                stack.callback(metrics.close)
                observers.insert(0, metrics)  # before the log: an event that is read there can be scraped already
            yield Observers(observers), log
        except LabelStoreError as error:
            if log is not None:
                log.failed(str(error))
            raise
