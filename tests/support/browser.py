"""A real browser for tests of the page: Debian's chromium, driven by Playwright."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

NAMES = "chromium", "chromium-browser", "google-chrome"


def chromium() -> str | None:
    """Where there is one."""
    return next(filter(None, map(shutil.which, NAMES)), None)


@contextmanager
def browsing() -> Iterator[Any]:
    """A browser; it holds an event loop in this thread until it is closed."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


@dataclass
class Tab:
    """A tab of its own profile. ``said``: its console's warnings and errors; ``elsewhere``: what it asked of other servers."""

    page: Any
    url: str
    said: list[str] = field(default_factory=list)
    elsewhere: list[str] = field(default_factory=list)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.page, name)

    def open(self, path: str) -> Tab:
        """Go to an address, and wait until nothing more is loaded."""
        self.page.goto(self.url + path)
        self.page.wait_for_load_state("networkidle")
        return self

    def label(self, which: str = "crop") -> str:
        """The best class of a soft label that is shown."""
        return str(self.page.locator(f"#{which}-label .name").first.inner_text())

    def box(self) -> list[float]:
        """The box, as its field has it."""
        return [float(edge) for edge in self.page.locator("#box-text").input_value().split(",")]

    def drag(self, start: tuple[float, float], end: tuple[float, float], steps: int = 8) -> None:
        """Drag the mouse from one place of the photograph to another, in fractions of it."""
        area = self.page.locator(".stage").bounding_box()
        points = [(area["x"] + x * area["width"], area["y"] + y * area["height"]) for x, y in (start, end)]
        self.page.mouse.move(*points[0])
        self.page.mouse.down()
        self.page.mouse.move(*points[1], steps=steps)
        self.page.mouse.up()

    def serious(self) -> list[str]:
        """What axe-core finds of serious or critical barriers."""
        import axe_playwright_python

        source = Path(axe_playwright_python.__file__).parent.joinpath("axe.min.js").read_text()
        self.page.evaluate(source)
        found = self.page.evaluate("axe.run()")
        return [
            f"{problem['id']}: {node['html'][:200]} {node['failureSummary'][:300]}"
            for problem in found["violations"]
            if problem["impact"] in ("serious", "critical")
            for node in problem["nodes"]
        ]


@contextmanager
def tab(browser: Any, url: str, **options: Any) -> Iterator[Tab]:
    """Open a tab for a server."""
    options.setdefault("viewport", {"width": 1200, "height": 800})
    with browser.new_context(**options) as context:
        context.set_default_timeout(15_000)
        found = Tab(context.new_page(), url)
        found.page.on("console", lambda note: _is_trouble(note) and found.said.append(note.text))
        found.page.on("pageerror", lambda error: found.said.append(str(error)))
        found.page.on("request", lambda asked: asked.url.startswith((url, "blob:")) or found.elsewhere.append(asked.url))
        yield found


def _is_trouble(note: Any) -> bool:
    """Whether the page is to blame: that tests read canvases back is no fault of its."""
    return note.type in ("warning", "error") and "willReadFrequently" not in note.text
