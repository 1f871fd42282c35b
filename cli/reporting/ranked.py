"""The images whose map disagrees with their single label, ranked, as CSV."""

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
            "image_id": reader.ids[row],
            "row": row,
            "likely_wrong": "yes" if suspects.likely[rank] else "no",
            "margin": f"{suspects.margins[rank]:.4f}",
            "label": folders[label] if folders and label < len(folders) else label,
            "label_class": own,
            "label_name": class_name(own, names),
            "label_probability": f"{survey.own_probability[row]:.4f}",
            "best_class": best,
            "best_name": class_name(best, names),
            "best_probability": f"{survey.best_probability[row]:.4f}",
        }
