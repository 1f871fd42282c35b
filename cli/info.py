"""`labelstore info`."""

from __future__ import annotations

import shlex
import time
from dataclasses import asdict
from typing import Any

import click
from rich.table import Table
from rich.text import Text

from labelstore.agreement import Agreement, label_agreement
from labelstore.cli.class_map_option import class_map_option
from labelstore.cli.leftout import REMEDY, agreement_as_dict, doubt_words
from labelstore.cli.output import human_bytes, human_count, human_seconds
from labelstore.cli.telling import people, say_json, tell
from labelstore.credentials import without_credentials
from labelstore.errors import DamagedError
from labelstore.reader import LabelMapReader
from labelstore.records import AnnotatorRecord, ImportRecord, LabelDistance, ScoresRecord
from labelstore.schema import StoreInfo
from labelstore.summary import StoreCounts, count_rows, failures_of

_SHOWN_FAILURES = 10
_MOST_CHARACTERS = 2000


@click.command("info")
@click.argument("store", default="labels.zarr")
@class_map_option
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON, all failures with their reasons included.")
@click.option("--watch", is_flag=True, help="Look again every few seconds until no row is pending.")
@click.option("--every", type=click.FloatRange(0.1), default=5, show_default=True, metavar="SECONDS", help="For --watch.")
def command(store: str, class_map: str | None, as_json: bool, watch: bool, every: float) -> None:
    """Sum a store up: rows, size, annotator, versions.

    \b
    Examples:
      labelstore info
      labelstore info imagenet.zarr --json | jq .rows.failed
      labelstore info imagenet.zarr --watch
    """
    reader = LabelMapReader(store, compiled=False)
    if watch:
        _watch(reader, store, every)
    counts = count_rows(reader, store)
    if as_json:
        say_json(_as_json(reader, store, counts, _agreement(reader, class_map)))
    else:
        _show(reader, store, counts, _agreement(reader, class_map))


def _watch(reader: LabelMapReader, store: str, every: float) -> None:
    """Print a line of counts now and then, as long as rows are pending."""
    console, before = people(stderr=True), None
    start = time.monotonic()
    while (counts := count_rows(reader, store)).pending:
        now = time.monotonic()
        if before is None:
            before = counts.done + counts.failed
        rate = (counts.done + counts.failed - before) / max(now - start, 1e-3)
        left = f", {human_seconds(counts.pending / rate)} left" if rate else ""
        tell(
            console,
            f"{counts.done:,} of {counts.rows:,} done, {counts.failed:,} failed, {counts.pending:,} pending, "
            f"{human_bytes(counts.size_bytes)}; {rate:.1f} images/s since {human_seconds(now - start)}{left}",
        )
        time.sleep(every)


def _show(reader: LabelMapReader, store: str, counts: StoreCounts, agreement: Agreement | str | None) -> None:
    console = people()
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")  # a path is shown whole
    facts = [*facts_of(reader.info, store, counts), ("agreement", _agreement_in_words(agreement))]
    for name, value in facts:
        table.add_row(Text(name, style="bold"), Text(value[:_MOST_CHARACTERS]))  # Text: names in it may look like markup
    console.print(table)
    for image_id, reason in failures_of(reader, _SHOWN_FAILURES):
        tell(console, f"  failed: {image_id}: {reason}")
    if counts.failed > _SHOWN_FAILURES:
        more = counts.failed - _SHOWN_FAILURES
        tell(console, f"  and {more} more: labelstore info {shlex.quote(store)} --json")
    if counts.pending:
        console.print(f"{counts.pending} rows are pending: run annotate again to make them.", highlight=False)


def facts_of(info: StoreInfo, store: str, counts: StoreCounts) -> list[tuple[str, str]]:
    """Return what the store says of itself, as (name, value) in words."""
    annotator, (height, width) = info.annotator, info.map_size
    a_map = f", {counts.bytes_a_map:,.0f} bytes a map" if counts.bytes_a_map else ""
    return [
        ("store", without_credentials(store)),
        ("images", f"{counts.rows:,}: {counts.done:,} done, {counts.failed:,} failed, {counts.pending:,} pending"),
        ("size", human_bytes(counts.size_bytes) + a_map),
        ("maps", f"{height}x{width} locations, {_encoding(info)} of {info.num_classes:,}"),
        ("baseline", info.baseline),
        ("distance", _distance(info.distance, "the annotator's own")),
        ("annotator", _annotator(annotator)),
        ("input", _input(info)),
        ("scores", _scores(info)),
        *([] if info.imported is None else [("imported", _imported(info.imported))]),
        ("images' root", ", ".join(dict.fromkeys(extent.images_root or "not recorded" for extent in info.all_extents))),
        ("EXIF rotation", info.exif),
        ("16-bit greyscale", info.grey16),
        ("labels", f"{len(info.target_names):,} classes by name" if info.target_names else "no names"),
        ("shards", f"{info.num_shards:,} of {info.shard_size:,} rows"),
        ("made", info.created),
        ("with", ", ".join(f"{name} {number}" for name, number in info.versions.items())),
    ]


def _encoding(info: StoreInfo) -> str:
    shape = info.spectral
    if shape is None:
        return f"{info.encoding}, {info.top_k} classes a location"
    down, across = shape.frequencies
    patterns = f"{shape.patterns} patterns of {down}x{across} frequencies"
    return (
        f"{info.encoding}, {patterns}, {shape.classes} classes an image, {human_count(shape.tail_bits, 'bit')} for each other"
    )


def _distance(found: LabelDistance | None, whose: str) -> str:
    if found is None:
        return "not measured"
    best = "" if found.best is None else f"; their best class has a probability of {found.best:.4f} on average"
    how = f"L1 {found.l1:.3f}, KL {found.kl:.3f}, same best class for {found.agreement:.0%} of crops"
    return f"{how}: to {whose} labels, over {found.images} of the images{best}"


def _annotator(record: AnnotatorRecord) -> str:
    if not record.input_size:  # of maps that another program made
        return record.name
    weights = f" of {record.weights}" if record.weights else ""
    members = [
        f"{record.name} at {record.input_size} px",
        *(f"{other.name} at {other.input_size} px" for other in record.others),
    ]
    flip = ", averaged with the mirrored image" if record.flip else ""
    return f"{' + '.join(members)}, weights {record.weights_sha256[:16]}{weights}{flip}"


def _input(info: StoreInfo) -> str:
    annotator = info.annotator
    if not annotator.input_size:
        return "not recorded"
    normalised = f"mean {_numbers(annotator.mean)}, std {_numbers(annotator.std)}"
    return f"{normalised}, {annotator.interpolation}; {info.decoder}, {annotator.precision}"


def _scores(info: StoreInfo) -> str:
    given = [info.annotator.scores, *(other.scores for other in info.annotator.others)]
    found = given if info.imported is None else [info.imported.scores]
    return ", ".join(dict.fromkeys(map(_unit_in_words, found)))


def _unit_in_words(scores: ScoresRecord | None) -> str:
    if scores is None or scores.unit == "logits":
        return "logits, as they came"
    if scores.removed:
        return f"logits, a {scores.unit} at the end taken off"
    floor = "" if scores.floor is None else f", at least {scores.floor:g}"
    return {"softmax": f"logarithms of probabilities{floor}", "sigmoid": f"logits of a sigmoid's probabilities{floor}"}.get(
        scores.unit, "log-probabilities"
    )


def _imported(record: ImportRecord) -> str:
    axes = f", axes {record.axes}" if record.axes != "yx" or record.kind == "relabel" else ""
    place = f", from {record.location}" if record.location else ""
    distance = ". " + _distance(record.distance, "those maps'") if record.distance else ""
    return f"as {record.kind}{axes}{place}{distance}"


def _agreement(reader: LabelMapReader, class_map: str | None) -> Agreement | str | None:
    """What is found, or why the maps cannot be read: a damaged store can be summed up all the same."""
    try:
        return label_agreement(reader, class_map=class_map)
    except DamagedError as error:
        return str(error)


def _agreement_in_words(found: Agreement | str | None) -> str:
    if found is None:
        return f"images have no labels that are the annotator's classes; {REMEDY}"
    if isinstance(found, str):
        return f"not measured: {found}"
    how = f"{found.top1:.1%} are the best class of the whole image, {found.top5:.1%} among the best five"
    doubt = doubt_words(found)
    return f"of the images' own labels {how} ({human_count(found.images, 'image')} looked at)" + (f". {doubt}" if doubt else "")


def _numbers(values: tuple[float, ...]) -> str:
    return " ".join(f"{value:g}" for value in values)


def _as_json(reader: LabelMapReader, store: str, counts: StoreCounts, agreement: Agreement | str | None) -> dict[str, Any]:
    info = asdict(reader.info)
    failures = failures_of(reader, counts.rows)
    return {
        "store": without_credentials(store),
        "rows": {"all": counts.rows, "done": counts.done, "failed": counts.failed, "pending": counts.pending},
        "bytes": counts.size_bytes,
        "bytes_a_map": counts.bytes_a_map,
        "agreement": agreement_as_dict(agreement) if isinstance(agreement, Agreement) else None,
        "labels_left_out": agreement.left_out if isinstance(agreement, Agreement) else None,
        **info,
        "failures": [{"id": image_id, "reason": reason} for image_id, reason in failures],
    }
