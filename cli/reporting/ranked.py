"""The images whose map disagrees with their single label, ranked, as CSV.

A spreadsheet takes a cell for a formula that begins like one: texts that do have an apostrophe before them.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

from labelstore.cli.mapview import class_name
from labelstore.cli.reporting.gather import Findings

COLUMNS = (
    "rank",
    "image_id",
    "row",
    "likely_wrong",
    "margin",
    "label",
    "label_class",
    "label_name",
    "label_probability",
    "best_class",
    "best_name",
    "best_probability",
)


_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""How cells begin that a spreadsheet computes; the last four are the wide forms of the first."""


def as_text(cell: str) -> str:
    """Return a cell that no spreadsheet takes for a formula."""
    return f"'{cell}" if cell.startswith(_FORMULA) else cell


def write_ranked(findings: Findings, path: Path) -> int:
    """Write the list; return how many rows it has."""
    rows = list(ranked(findings))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    return len(rows)


def ranked(findings: Findings) -> Iterator[dict[str, object]]:
    """Yield the list's rows, the most doubtful label first."""
    reader, survey, suspects = findings.reader, findings.survey, findings.suspects
    names, folders, targets = reader.class_names, reader.info.target_names, reader.targets
    for rank, row in enumerate(suspects.rows.tolist()):
        label, own, best = int(targets[row]), int(survey.own[row]), int(survey.best[row])
        yield {
            "rank": rank + 1,
            "image_id": as_text(reader.ids[row]),
            "row": row,
            "likely_wrong": "yes" if suspects.likely[rank] else "no",
            "margin": f"{suspects.margins[rank]:.4f}",
            "label": as_text(folders[label]) if folders and label < len(folders) else label,
            "label_class": own,
            "label_name": as_text(class_name(own, names)),
            "label_probability": f"{survey.own_probability[row]:.4f}",
            "best_class": best,
            "best_name": as_text(class_name(best, names)),
            "best_probability": f"{survey.best_probability[row]:.4f}",
        }
