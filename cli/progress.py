"""How a run is shown on a terminal."""

from __future__ import annotations

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from labelstore.cli.telling import tell, warn
from labelstore.credentials import without_credentials
from labelstore.pipelines.observer import Observer


class ProgressBar(Observer):
    """Shows a run on a terminal: phases, a bar with images/s and the time left, warnings. To stderr."""

    def __init__(self, console: Console, doing: str = "annotating", what: str = "images") -> None:
        self._console, self._doing, self._what = console, doing, what
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._progress.add_task("", total=None, rate="")
        self._already = 0

    def __enter__(self) -> ProgressBar:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def close(self) -> None:
        """Take the bar off the terminal: a question is about to be asked."""
        self._progress.stop()

    def phase(self, text: str) -> None:
        """Show what begins."""
        self._progress.update(self._task, description=without_credentials(text))

    def dashboard(self, url: str) -> None:
        """Print the dashboard's address, to be clicked while the run goes on."""
        tell(self._console, Text(f"Dask dashboard: {url}"))  # with its token, which is taken out of all other lines

    def note(self, text: str) -> None:
        """Print a line above the bar."""
        tell(self._console, text)

    def warning(self, text: str) -> None:
        """Print a warning above the bar."""
        warn(self._console, text)

    def plan(self, total: int, already: int) -> None:
        """Start the bar; rows that are committed already count as done, but not in images/s."""
        self._already = already
        self._progress.reset(self._task, total=total, completed=already, description=self._doing, rate="")

    def rows(self, done: int, failed: int) -> None:
        """Move the bar."""
        elapsed = self._progress.tasks[0].elapsed or 0.0
        rate = f"{(done + failed) / elapsed:.1f} {self._what}/s" if elapsed else ""
        text = f"{rate}, {failed} failed" if failed else rate
        self._progress.update(self._task, completed=self._already + done + failed, rate=text)
