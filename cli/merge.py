"""`labelstore merge`."""

from __future__ import annotations

import click

from labelstore.cli.cluster_options import ClusterChoice, with_cluster
from labelstore.cli.runs import RunChoice, run_options


@click.command("merge")
@click.argument("stores", nargs=-1, required=True)
@click.argument("dest")
@click.option(
    "--shard-size", type=click.IntRange(1, 65536), metavar="S", help="Images a shard.  [default: the largest store's]"
)
@click.option("--skip-duplicates", is_flag=True, help="Of an image that several stores have, take the first one's map.")
@with_cluster
@run_options
def command(
    stores: tuple[str, ...],
    dest: str,
    shard_size: int | None,
    skip_duplicates: bool,
    cluster: ClusterChoice,
    how: RunChoice,
) -> None:
    """Put the rows of STORES together in a new store DEST.

    They must be of one annotator, encoding and size. Shards are copied as they are where they have DEST's size, other rows as
    they are encoded: no map is changed. Rows that are pending are left out. Interrupted, the same command goes on.

    \b
    Examples:
      labelstore merge part1.zarr part2.zarr part3.zarr imagenet.zarr
      labelstore merge monday.zarr tuesday.zarr week.zarr --skip-duplicates
    """
    from labelstore.pipelines.exchange.combining import merge_stores  # torch takes seconds: not for --help

    if len(stores) < 2:
        raise click.UsageError("expected two stores or more, and the new one's place")
    how.show(
        lambda observer: merge_stores(
            stores,
            dest,
            cluster.resources_without_annotators(),
            observer,
            shard_size=shard_size,
            skip_duplicates=skip_duplicates,
        ),
        "merging",
        "merged",
    )
