"""`labelstore report`."""

from __future__ import annotations

from pathlib import Path

import click

from labelstore.cli.class_map_option import class_map_option
from labelstore.cli.leftout import left_out_words
from labelstore.cli.output import human_bytes
from labelstore.cli.progress import ProgressBar
from labelstore.cli.reporting.gather import gather
from labelstore.cli.telling import people, tell, warn
from labelstore.errors import OptionError


@click.command("report")
@click.argument("store", default="labels.zarr")
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    default="report.html",
    show_default=True,
    help="The HTML file; the ranked list is written beside it, ending in .csv.",
)
@click.option(
    "--images",
    metavar="ROOT",
    help="Where the photographs lie: what annotate takes.  [default: as the store recorded, on this machine]",
)
@class_map_option
@click.option("--examples", type=click.IntRange(0, 500), default=24, show_default=True, help="Images shown of each kind.")
def command(store: str, out: Path, images: str | None, class_map: str | None, examples: int) -> None:
    """Report what the maps say of a data set: one HTML file, and a ranked list of likely wrong labels (CSV).

    Images with several classes, likely wrong single labels, how often random
    crops differ from the single label, classes seen together, agreement.

    \b
    Examples:
      labelstore report
      labelstore report imagenet.zarr --images /data/imagenet/train --out imagenet.html
    """
    from labelstore.cli.reporting.page import write_page
    from labelstore.cli.reporting.ranked import write_ranked
    from labelstore.pipelines.photographs import Photographs

    if not out.parent.is_dir():
        raise OptionError(f"--out {out}: there is no folder {str(out.parent)!r}")
    console = people(stderr=True)
    with ProgressBar(console, "looking at maps", "maps") as bar:
        findings = gather(store, bar, class_map, images)
    listed = out.with_suffix(".csv")
    with console.status("drawing"):
        text = write_page(findings, Photographs(findings.reader.info, images), examples, listed.name)
    try:
        out.write_text(text, encoding="utf-8")
        rows = write_ranked(findings, listed) if findings.overview.labelled else None
    except OSError as error:
        raise OptionError(f"cannot write {error.filename or out}: {error.strerror}") from error
    words = left_out_words(findings.reader.info, findings.survey)
    if words:
        warn(console, words)
    tell(console, f"Saved {out} ({human_bytes(len(text.encode()))})")
    if rows is not None:
        tell(console, f"Saved {listed} ({rows:,} images whose map disagrees with their label)")
