"""`labelstore view`."""

from __future__ import annotations

import contextlib

import click
from rich.console import Console

from labelstore.cli.class_map_option import class_map_option
from labelstore.cli.telling import people, tell, warn
from labelstore.errors import MissingExtraError


@click.command("view")
@click.argument("store", default="labels.zarr")
@click.option(
    "--images",
    metavar="ROOT",
    help="Where the photographs lie: what annotate takes.  [default: as the store recorded, on this machine]",
)
@class_map_option
@click.option("--port", type=click.IntRange(0, 65535), default=8765, show_default=True, help="0: any that is free.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Listen there.")
@click.option("--open", "opened", is_flag=True, help="Show it in the browser.")
@click.option("--no-token", is_flag=True, help="Answer every user and program of this machine, without the token.")
def command(store: str, images: str | None, class_map: str | None, port: int, host: str, opened: bool, no_token: bool) -> None:
    """Look at a store in a browser: images, maps, soft labels of crops, statistics.

    STORE is a path or a URL. The address that is printed holds a token, which is
    asked for everywhere; LABELSTORE_VIEW_TOKEN in the environment chooses it.
    The same server answers programs: docs/viewing.md, and /api/openapi.json.

    \b
    Examples:
      labelstore view
      labelstore view imagenet.zarr --images /data/imagenet/train --open
      labelstore view s3://bucket/labels.zarr --host 0.0.0.0 --port 80
    """
    try:
        from labelstore.cli.web.serve import address, bind, rules_for, serve
    except ImportError as error:
        if (error.name or "").partition(".")[0] not in ("starlette", "uvicorn", "anyio", "prometheus_client"):
            raise
        raise MissingExtraError(f"view needs {error.name}: pip install 'labelstore[view]'") from error
    from labelstore.cli.web.opening import open_browser, opening_page
    from labelstore.cli.web.site import Site

    console = people(stderr=True)
    site = Site(store, images, class_map)
    rules = rules_for(host, token=not no_token)
    sock = bind(host, port)
    url = address(sock, rules.token)
    _warn(console, host, token=not no_token)
    with contextlib.ExitStack() as stack:
        page = stack.enter_context(opening_page(url)) if opened else None

        def started() -> None:
            click.echo(url)
            if page is not None and not open_browser(page):
                warn(console, "--open: no browser was found here; open the address yourself")

        tell(console, f"Serving {store} ({site.info.num_images:,} images); Ctrl-C ends it.")
        with contextlib.suppress(KeyboardInterrupt):  # also of SIGTERM, when what was asked for has been answered
            serve(site, rules, sock, started)
    tell(console, "Ended.")


def _warn(console: Console, host: str, *, token: bool) -> None:
    """Say what the server's address means."""
    from labelstore.cli.web.guard import is_loopback

    if not token:
        warn(console, "--no-token: every user and every program of this machine sees the images while this runs.")
    elif not is_loopback(host):
        warn(
            console,
            f"{host} is reached from other machines: with the address below, its token in it, all images are seen. "
            "The connection is not encrypted.",
        )
