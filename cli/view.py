"""`labelstore view`."""

from __future__ import annotations

import contextlib

import click
from rich.console import Console

from labelstore.cli.telling import tell, warn
from labelstore.errors import MissingExtraError


@click.command("view")
@click.argument("store", default="labels.zarr")
@click.option(
    "--images",
    metavar="ROOT",
    help="Where the photographs lie: what annotate takes.  [default: as the store recorded]",
)
@click.option("--port", type=click.IntRange(0, 65535), default=8765, show_default=True, help="0: any that is free.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Listen there; others than this machine need a token.")
@click.option("--open", "opened", is_flag=True, help="Show it in the browser.")
def command(store: str, images: str | None, port: int, host: str, opened: bool) -> None:
    """Look at a store in a browser: images, maps, soft labels of crops, statistics.

    STORE is a path or a URL. The same server answers programs: docs/viewing.md,
    and http://127.0.0.1:8765/api/openapi.json while it runs.

    \b
    Examples:
      labelstore view
      labelstore view imagenet.zarr --images /data/imagenet/train --open
      labelstore view s3://bucket/labels.zarr --host 0.0.0.0 --port 80
    """
    try:
        from labelstore.cli.web.serve import address, bind, open_browser, rules_for, serve
    except ImportError as error:
        if (error.name or "").partition(".")[0] not in ("starlette", "uvicorn", "anyio", "prometheus_client"):
            raise
        raise MissingExtraError(f"view needs {error.name}: pip install 'labelstore[view]'") from error
    from labelstore.cli.web.site import Site

    console = Console(stderr=True)
    site = Site(store, images)
    rules, sock = rules_for(host), bind(host, port)
    url = address(sock, rules.token)
    if rules.token:
        warn(
            console,
            f"{host} is reached from other machines: who opens this address sees all images. It has a token, "
            "shown only now; the connection is not encrypted.",
        )

    def started() -> None:
        click.echo(url)
        if opened:
            open_browser(url)

    tell(console, f"Serving {store} ({site.info.num_images:,} images); Ctrl-C ends it.")
    with contextlib.suppress(KeyboardInterrupt):  # also of SIGTERM, when what was asked for has been answered
        serve(site, rules, sock, started)
    tell(console, "Ended.")
