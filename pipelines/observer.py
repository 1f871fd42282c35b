"""Who watches a run. Light to import: user interfaces are built before the heavy parts are loaded."""

from __future__ import annotations

from collections.abc import Sequence


class Observer:
    """Hears what a run is doing; a user interface overrides what it shows.

    `rows` and `written` may be called from another thread.
    """

    def phase(self, text: str) -> None:
        """Something begins that takes a while."""

    def dashboard(self, url: str) -> None:
        """The Dask dashboard is up."""

    def note(self, text: str) -> None:
        """Something has been done that the user should know of."""

    def warning(self, text: str) -> None:
        """Something is likely not what the user wants."""

    def plan(self, total: int, already: int) -> None:
        """The run begins: ``total`` rows in the store, ``already`` of them committed."""

    def rows(self, done: int, failed: int) -> None:
        """So many rows of this run are done and failed by now."""

    def written(self, num_bytes: int) -> None:
        """So many bytes of finished shards have been written by now."""


class Observers(Observer):
    """Passes on to several what a run tells."""

    def __init__(self, observers: Sequence[Observer]) -> None:
        self._observers = observers

    def phase(self, text: str) -> None:
        """See `Observer.phase`."""
        for observer in self._observers:
            observer.phase(text)

    def dashboard(self, url: str) -> None:
        """See `Observer.dashboard`."""
        for observer in self._observers:
            observer.dashboard(url)

    def note(self, text: str) -> None:
        """See `Observer.note`."""
        for observer in self._observers:
            observer.note(text)

    def warning(self, text: str) -> None:
        """See `Observer.warning`."""
        for observer in self._observers:
            observer.warning(text)

    def plan(self, total: int, already: int) -> None:
        """See `Observer.plan`."""
        for observer in self._observers:
            observer.plan(total, already)

    def rows(self, done: int, failed: int) -> None:
        """See `Observer.rows`."""
        for observer in self._observers:
            observer.rows(done, failed)

    def written(self, num_bytes: int) -> None:
        """See `Observer.written`."""
        for observer in self._observers:
            observer.written(num_bytes)
