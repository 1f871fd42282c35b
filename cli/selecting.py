"""The options that say which of a store's images are meant."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import click

from labelstore.cli.cluster_options import Option, add_options
from labelstore.pipelines.exchange.selection import Selection

_OPTIONS: tuple[Option, ...] = (
    click.option(
        "--ids",
        type=click.Path(exists=True, dir_okay=False),
        metavar="FILE",
        help="Those images whose ids are in this file, one a line.",
    ),
    click.option(
        "--match",
        multiple=True,
        metavar="GLOB",
        help="Those images whose ids match, such as 'n01*' (* stands for / too); several times: any of them.",
    ),
)


def selection_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options to a command, which gets them as one ``selection``."""

    @functools.wraps(command)
    def with_selection(*arguments: Any, ids: str | None, match: tuple[str, ...], **given: Any) -> None:
        command(*arguments, selection=Selection(ids, match), **given)

    return add_options(with_selection, _OPTIONS)
