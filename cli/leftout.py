"""Images whose own labels cannot be held against the annotator's classes: which, how many, and what to do about it."""

from __future__ import annotations

from typing import Any

import numpy as np

from labelstore.agreement import Agreement
from labelstore.cli.mapview import class_name
from labelstore.cli.output import human_count
from labelstore.schema import StoreInfo
from labelstore.survey import Survey

REMEDY = "--class-map FILE says which classes of the annotator the labels are"
_SHOWN = 5


def left_out(info: StoreInfo, survey: Survey) -> dict[str, Any]:
    """Return how many images are left out, and the most frequent of their labels with what the maps say of these."""
    rows = np.flatnonzero(survey.left_out)
    labels = survey.labels[rows]
    numbers, counts = np.unique(labels, return_counts=True)
    shown = []
    for place in np.argsort(-counts, kind="stable")[:_SHOWN].tolist():
        best = np.bincount(survey.best[rows[labels == numbers[place]]])
        shown.append(
            {
                "label": _label_name(info, int(numbers[place])),
                "images": int(counts[place]),
                "best": class_name(int(best.argmax()), info.class_names),
                "best_images": int(best.max()),
            }
        )
    return {"images": len(rows), "labels": shown, "others": len(numbers) - len(shown), "remedy": REMEDY}


def left_out_words(info: StoreInfo, survey: Survey) -> str:
    """Return the same in words; '' where no image is left out."""
    found = left_out(info, survey)
    if not found["images"]:
        return ""
    each = [f"{e['label']} ({e['images']:,}; {e['best_images']:,} of them {e['best']})" for e in found["labels"]]
    more = f" and {found['others']:,} more labels" if found["others"] else ""
    return (
        f"{found['images']:,} images are left out of what is said of labels: theirs are no class of the annotator, or have "
        f"only the name of one: {', '.join(each)}{more}. {REMEDY}."
    )


def doubt_words(found: Agreement) -> str:
    """Return what an agreement leaves open, and why it may be nothing; '' where that is clear."""
    parts = []
    if found.left_out:
        parts.append(f"{human_count(found.left_out, 'other image')} with labels that are no class of the annotator")
    if not found.top1:
        parts.append("labels that never are the best class may have no more than its name, or its number")
    return f"{'; '.join(parts)}: {REMEDY}" if parts else ""


def agreement_as_dict(found: Agreement | None) -> dict[str, Any] | None:
    """Return an agreement as JSON has it."""
    return None if found is None else {"top1": found.top1, "top5": found.top5, "images": found.images}


def _label_name(info: StoreInfo, number: int) -> str:
    names = info.target_names
    return class_name(number, names) if names and number < len(names) else str(number)
