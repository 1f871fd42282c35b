"""Findings -> one HTML file that needs nothing else."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime
from importlib.resources import files

import numpy as np

from labelstore.cli.colours import css
from labelstore.cli.leftout import left_out_words
from labelstore.cli.mapview import class_name, percent
from labelstore.cli.reporting import plots
from labelstore.cli.reporting.examples import Example, example_of
from labelstore.cli.reporting.gather import Findings
from labelstore.cli.reporting.markup import Markup, element, image, table
from labelstore.cli.reporting.ranked import ranked
from labelstore.pipelines.photographs import Photographs
from labelstore.statistics import SHOWN
from labelstore.version import __version__

_TABLE_ROWS, _LEGEND_ROWS = 100, 4
_RULES = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def write_page(findings: Findings, photographs: Photographs, examples: int, csv_name: str) -> str:
    """Return the file's text; ``examples`` images are shown in each part that shows some."""
    sections = [
        _summary(findings),
        _left_out(findings),
        _several(findings, photographs, examples),
        _wrong_labels(findings, photographs, examples, csv_name),
        _crops(findings),
        _together(findings),
        _entropy(findings),
        _agreement(findings),
    ]
    style = Markup(files("labelstore.cli.reporting").joinpath("report.css").read_text())
    head = Markup(
        f'<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{_RULES}">'
    )
    body = element("main", *(section for section in sections if section))
    title = f"What the label maps say of {findings.store}"
    return "<!doctype html>\n" + element(
        "html", element("head", head, element("title", title), element("style", style)), element("body", body), lang="en"
    )


def _summary(findings: Findings) -> Markup:
    found, risk, info = findings.overview, findings.risk, findings.reader.info
    tiles = [
        (percent(found.several / found.images), "several classes", "of images show two or more"),
        (
            percent(risk.from_whole if risk.from_label is None else risk.from_label),
            "crops' risk",
            "of random crops are of another class than "
            + ("the whole image" if risk.from_label is None else "the single label"),
        ),
    ]
    if found.labelled:
        tiles.append((percent(found.agree / found.labelled), "agreement", "of single labels are the map's best class"))
        likely = int(findings.suspects.likely.sum())
        tiles.append((f"{likely:,}", "likely wrong labels", f"of {found.labelled:,}"))
    made = f"{found.images:,} label maps by {info.annotator.full_name}, {datetime.now(UTC):%Y-%m-%d}, labelstore {__version__}."
    return element(
        "header",
        element("h1", f"What the label maps say of {findings.store}"),
        element("p", made, " All of it is what this annotator sees; where it errs, so does this report.", class_="faint"),
        element(
            "div",
            *(
                element("div", element("span", value, class_="value"), element("strong", name), element("span", about))
                for value, name, about in tiles
            ),
            class_="tiles",
        ),
    )


def _left_out(findings: Findings) -> Markup | None:
    words = left_out_words(findings.reader.info, findings.survey)
    return _section("Labels that are not compared", words) if words else None


def _several(findings: Findings, photographs: Photographs, examples: int) -> Markup:
    found, survey = findings.overview, findings.survey
    counts = np.where(survey.known, survey.class_count(SHOWN), 0)
    # The most classes first; among as many, those that share the image most evenly.
    second = survey.shares[:, 1].astype(np.int64)
    rows = np.lexsort((-second, -counts))[:examples]
    shown = [example_of(findings.reader, photographs, row) for row in rows.tolist() if counts[row] >= 2]
    return _section(
        "Images with several classes",
        f"{found.several:,} of {found.images:,} images ({percent(found.several / found.images)}) show two or more classes, "
        f"each in {percent(SHOWN)} of the map's locations or more. One label an image leaves out the others.",
        element("div", *map(_figure, shown), class_="gallery"),
    )


def _wrong_labels(findings: Findings, photographs: Photographs, examples: int, csv_name: str) -> Markup | None:
    found, suspects = findings.overview, findings.suspects
    if not found.labelled:
        return None
    likely = int(suspects.likely.sum())
    listed = list(itertools.islice(ranked(findings), _TABLE_ROWS))
    shown = [
        _figure(
            example_of(findings.reader, photographs, int(str(entry["row"]))),
            "{label_name} ({label_probability})? The map says {best_name} ({best_probability}).".format(**entry),
        )
        for entry in listed[:examples]
        if entry["likely_wrong"] == "yes"
    ]
    heads = ["image", "single label", "its probability", "best class", "its probability", "margin"]
    keys = ("image_id", "label_name", "label_probability", "best_name", "best_probability", "margin")
    return _section(
        "Likely wrong single labels",
        f"{likely:,} of {found.labelled:,} single labels ({percent(likely / found.labelled)}) are likely wrong: another class "
        "is the best one of the whole image, and at least as probable as it is, on average, in images with that label "
        f"(confident learning). {len(suspects.rows):,} maps disagree in all; ranked by margin in {csv_name}.",
        element("div", *shown, class_="gallery"),
        table("Images whose map disagrees with their label", heads, ([str(entry[key]) for key in keys] for entry in listed)),
    )


def _crops(findings: Findings) -> Markup:
    risk = findings.risk
    own = rest = ""
    if risk.from_label is not None:
        which = (
            "" if risk.labelled_crops == risk.crops else f" of the {risk.labelled_crops:,} of {risk.labelled_images:,} images"
        )
        own = f"{percent(risk.from_label)}{which} are of another class than the image's single label; "
        rest = " of all" if which else ""
    unknown = risk.images - risk.sized
    sizes = f"; as of 4:3 for {unknown:,} images of unknown size, whose photographs are not at hand" if unknown else ""
    return _section(
        "The risk of random crops",
        f"Of {risk.crops:,} random training crops of {risk.images:,} images (RandomResizedCrop, 8 % of the area and more"
        f"{sizes}) {own}"
        f"{percent(risk.from_whole)}{rest} are of another class than the best one of the whole image. With one label an image, "
        "these crops teach something else than they show.",
        image(plots.risk_plot(findings), "Share of crops that differ, by their area"),
    )


def _together(findings: Findings) -> Markup | None:
    if not findings.together:
        return None
    return _section(
        "Classes that are seen together",
        f"Images that show both classes, each in {percent(SHOWN)} of the map or more.",
        image(plots.together_plot(findings), "How many images show both of two classes"),
        table(
            "Classes that are seen together",
            ["classes", "images"],
            (
                [f"{_name(findings, one)} and {_name(findings, other)}", f"{images:,}"]
                for one, other, images in findings.together
            ),
        ),
    )


def _entropy(findings: Findings) -> Markup:
    return _section(
        "How sure the soft labels are",
        "Entropy of the soft label of each whole image: 0 is one class and no doubt.",
        image(plots.entropy_plot(findings), "Images by the entropy of their soft label"),
    )


def _agreement(findings: Findings) -> Markup | None:
    if not findings.overview.labelled:
        return None
    pairs = ([f"{_name(findings, own)} → {_name(findings, best)}", f"{images:,}"] for own, best, images in findings.confusions)
    return _section(
        "Agreement by class",
        "The classes whose single labels the maps agree with least, and what the maps say instead.",
        image(plots.agreement_plot(findings), "Agreement of single labels and maps, by class"),
        table("What the maps say instead", ["single label → the map's best class", "images"], pairs),
    )


def _section(title: str, words: str, *parts: Markup) -> Markup:
    return element("section", element("h2", title), element("p", words), *parts)


def _figure(example: Example, words: str = "") -> Markup:
    pictures = [image(example.mapped, f"Label map of {example.image_id}")]
    if example.photo:
        pictures.insert(0, image(example.photo, f"Photograph {example.image_id}"))
    rows = [
        element(
            "li",
            element(
                "span",
                row.swatch.letter,
                class_="letter",
                style=f"background:{css(row.swatch.colour)};color:{css(row.swatch.text)}",
            ),
            f" {row.name} {percent(row.share)}",
        )
        for row in example.legend[:_LEGEND_ROWS]
    ]
    caption = element("figcaption", element("code", example.image_id), element("ul", *rows), words)
    return element("figure", element("div", *pictures, class_="pair"), caption)


def _name(findings: Findings, number: int) -> str:
    return class_name(number, findings.reader.class_names)
