"""The options that say how maps are kept."""

from __future__ import annotations

from collections.abc import Callable

import click

from labelstore.cli.cluster_options import Option, add_options
from labelstore.pipelines import defaults
from labelstore.schema import BASELINES


def encoding_options(encoding_default: str, top_k_default: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return what adds the options to a command; it gets each by its name, as `EncodingChoice` has them, and ``top_k``."""
    options: tuple[Option, ...] = (
        click.option(
            "--encoding",
            type=click.Choice(list(defaults.BASELINES)),
            help="How maps are kept: topk, the best classes of every location as in the paper; spectral, the image's classes "
            f"as smooth maps.  [default: {encoding_default}]",
        ),
        click.option(
            "--classes-per-image",
            type=click.IntRange(1, 65535),
            metavar="M",
            help=f"spectral: classes named for an image.  [default: {defaults.CLASSES_PER_IMAGE}]",
        ),
        click.option(
            "--patterns",
            type=click.IntRange(0, 255),
            metavar="R",
            help=f"spectral: patterns that the classes' maps are mixed of.  [default: {defaults.PATTERNS}]",
        ),
        click.option(
            "--frequencies",
            type=click.IntRange(1, 64),
            metavar="k",
            help=f"spectral: a pattern's cosines, k down and k across.  [default: {defaults.FREQUENCIES}]",
        ),
        click.option(
            "--tail-bits",
            type=click.IntRange(0, 2),
            metavar="b",
            help="spectral: bits for each class that is not named.  "
            f"[default: {defaults.TAIL_BITS}; 0 above {defaults.MOST_TAIL_CLASSES:,} classes]",
        ),
        click.option(
            "--top-k",
            type=click.IntRange(1, 65535),
            metavar="K",
            help=f"Classes at every location: kept with topk, rebuilt when a spectral map is read.  [default: {top_k_default}]",
        ),
        click.option(
            "--baseline",
            type=click.Choice(BASELINES),
            help="What classes that are not kept count as: their mean logit; the one that keeps their mass (spectral); or 0, "
            "as in the paper.  [default: absent_mean for topk, absent_mass for spectral]",
        ),
    )
    return lambda command: add_options(command, options)
