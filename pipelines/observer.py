"""Who watches a run. Light to import: user interfaces are built before the heavy parts are loaded."""

from __future__ import annotations


class Observer:
    """Hears what a run is doing; a user interface overrides what it shows. `rows` may be called from another thread."""

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
