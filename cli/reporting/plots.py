"""Findings as pictures, by matplotlib: SVG, in the palette that the maps are drawn in."""

from __future__ import annotations

import base64
import io
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from labelstore.cli.colours import PALETTE, css
from labelstore.cli.mapview import class_name
from labelstore.cli.reporting.gather import Findings
from labelstore.crop_risk import AREAS
from labelstore.errors import MissingExtraError

BLUE, ORANGE, GREEN = (css(colour) for colour in PALETTE[:3])
_WORST, _SHOWN, _LONGEST = 20, 12, 26
_STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "labelstore",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


def entropy_plot(findings: Findings) -> str:
    """How sure the soft labels of whole images are."""
    edges, images = findings.overview.entropy

    def draw(axes: Any) -> None:
        axes.bar(edges[:-1], images, np.diff(edges), align="edge", color=BLUE, edgecolor="white")
        axes.set(xlabel="entropy of the image's soft label, in nats", ylabel="images")

    return _drawn(draw, (6.4, 2.8))


def risk_plot(findings: Findings) -> str:
    """How often random crops differ, by their area."""
    names = [f"{low:.0%} to {high:.0%}" for low, high in itertools.pairwise(AREAS)]
    shares = [0 if math.isnan(share) else 100 * share for share in findings.risk.by_area]

    def draw(axes: Any) -> None:
        bars = axes.bar(names, shares, color=ORANGE)
        axes.bar_label(bars, [f"{share:.0f} %" for share in shares])
        axes.set(xlabel="area of the crop, of the image's", ylabel="crops that differ, %", ylim=(0, 108))

    return _drawn(draw, (6.4, 2.8))


def agreement_plot(findings: Findings) -> str:
    """The classes whose single labels the maps agree with least."""
    labelled = [facts for facts in findings.classes if facts.labelled]
    worst = sorted(labelled, key=lambda facts: (facts.agree / facts.labelled, -facts.labelled, facts.number))[:_WORST]
    names = _names(findings, [facts.number for facts in worst])

    def draw(axes: Any) -> None:
        places = range(len(worst))
        shares = [100 * facts.agree / facts.labelled for facts in worst]
        bars = axes.barh(places, shares, color=GREEN)
        axes.bar_label(bars, [f"{facts.agree:,} of {facts.labelled:,}" for facts in worst], padding=3)
        axes.set_yticks(places, names)
        axes.invert_yaxis()
        axes.set(xlabel="labels that are the map's best class, %", xlim=(0, 118))

    return _drawn(draw, (6.4, 0.6 + 0.26 * max(len(worst), 2)))


def together_plot(findings: Findings) -> str:
    """Which classes are seen in one image."""
    counts: dict[int, int] = {}
    for one, other, images in findings.together:
        counts[one] = counts.get(one, 0) + images
        counts[other] = counts.get(other, 0) + images
    shown = sorted(counts, key=lambda number: (-counts[number], number))[:_SHOWN]
    table = np.zeros((len(shown), len(shown)))
    for one, other, images in findings.together:
        if one in shown and other in shown:
            table[shown.index(one), shown.index(other)] = table[shown.index(other), shown.index(one)] = images
    names = _names(findings, shown)

    def draw(axes: Any) -> None:
        axes.imshow(np.ma.masked_equal(table, 0), cmap="viridis_r")
        axes.set_xticks(range(len(shown)), names, rotation=45, ha="right")
        axes.set_yticks(range(len(shown)), names)
        middle = table.max() / 2
        for (y, x), images in np.ndenumerate(table):
            if images:
                axes.text(
                    x, y, f"{images:,.0f}", ha="center", va="center", color="white" if images > middle else "black", size=8
                )

    return _drawn(draw, (6.4, 5.2))


def _names(findings: Findings, numbers: Sequence[int]) -> list[str]:
    names = [class_name(number, findings.reader.class_names).split(",")[0] for number in numbers]
    # A dollar sign would begin a formula.
    return [(name if len(name) <= _LONGEST else name[: _LONGEST - 1] + "…").replace("$", r"\$") for name in names]


def _drawn(draw: Callable[[Any], None], size: tuple[float, float]) -> str:
    """Return a picture as the address that holds it."""
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("report needs matplotlib: pip install 'labelstore[report]'") from error
    with mpl.rc_context(_STYLE):
        figure = Figure(size, layout="constrained")
        draw(figure.subplots())
        buffer = io.BytesIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return "data:image/svg+xml;base64," + base64.b64encode(buffer.getvalue()).decode()
