"""`labelstore subset`."""

from __future__ import annotations

import click

from labelstore.cli.cluster_options import ClusterChoice, with_cluster
from labelstore.cli.runs import RunChoice, run_options
from labelstore.cli.selecting import selection_options
from labelstore.pipelines.exchange.selection import Selection


@click.command("subset")
@click.argument("store")
@click.argument("dest")
@selection_options
@click.option(
    "--shard-size",
    type=click.IntRange(1, 65536),
    metavar="S",
    help="Images a shard.  [default: the store's, if any of its shards is chosen as a whole]",
)
@with_cluster
@run_options
def command(
    store: str, dest: str, selection: Selection, shard_size: int | None, cluster: ClusterChoice, how: RunChoice
) -> None:
    """Put some rows of STORE into a new store DEST.

    Shards of which all rows are chosen are copied as they are, other rows as they are encoded: no map is changed. Rows that are
    pending are left out. Interrupted, the same command goes on.

    \b
    Examples:
      labelstore subset imagenet.zarr imagenet100.zarr --ids imagenet100.txt
      labelstore subset imagenet.zarr dogs.zarr --match 'n02085*' --match 'n02086*'
    """
    from labelstore.pipelines.exchange.combining import subset_store  # torch takes seconds: not for --help

    if selection == Selection():
        raise click.UsageError("expected --ids FILE or --match GLOB: which images?")
    how.show(
        lambda observer: subset_store(
            store, dest, selection, cluster.resources_without_annotators(), observer, shard_size=shard_size
        ),
        "copying",
        "copied",
    )
