"""`labelstore convert`."""

from __future__ import annotations

from typing import Any

import click

from labelstore.cli.cluster_options import ClusterChoice, with_cluster
from labelstore.cli.encoding_options import encoding_options
from labelstore.cli.runs import RunChoice, run_options
from labelstore.pipelines import defaults
from labelstore.pipelines.choice import EncodingChoice


@click.command("convert")
@click.argument("store")
@click.argument("dest")
@encoding_options(defaults.ENCODING, "as STORE has it")
@with_cluster
@run_options
def command(store: str, dest: str, top_k: int | None, cluster: ClusterChoice, how: RunChoice, **encoding: Any) -> None:
    """Make a store DEST of STORE's maps in another encoding.

    The distance that this adds to the labels of crops is measured on 64 of the images, shown and recorded. Interrupted, the
    same command goes on.

    \b
    Examples:
      labelstore convert relabel.zarr relabel-spectral.zarr --encoding spectral
      labelstore convert labels.zarr top5.zarr --encoding topk --top-k 5
    """
    from labelstore.pipelines.exchange.converting import convert_store  # torch takes seconds: not for --help

    choice = EncodingChoice(**encoding)
    how.show(
        lambda observer: convert_store(store, dest, choice, top_k, cluster.resources_without_annotators(), observer),
        "converting",
        "converted",
    )
