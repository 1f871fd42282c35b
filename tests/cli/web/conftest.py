"""Servers of real stores, on ports of this machine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from pictures import paint
from runs import SERIAL
from web_client import Client, client_of

from labelstore.cli.web.serve import serving
from labelstore.cli.web.site import Site
from labelstore.pipelines.annotate import annotate
from labelstore.pipelines.observer import Observer
from labelstore.pipelines.settings import Settings


@pytest.fixture(scope="session")
def viewed(picture_store: Path) -> Iterator[Client]:
    """A server of `picture_store`, surveyed."""
    site = Site(str(picture_store))
    with serving(site) as url:
        yield client_of(url, site)


@pytest.fixture(scope="session")
def viewed_spectral(spectral_store: Path) -> Iterator[Client]:
    """A server of `spectral_store`."""
    site = Site(str(spectral_store))
    with serving(site) as url:
        yield client_of(url, site)


@pytest.fixture(scope="session")
def partial_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of 8 pictures in shards of 4: one failed, and the second shard is pending."""
    root = tmp_path_factory.mktemp("partial")
    for number, colour in enumerate(("red", "red", "green", "green", "blue", "blue", "red", "red")):
        paint(root / "images" / colour / f"{number}.png", colour)
    (root / "images" / "blue" / "4.png").write_bytes(b"no image")
    settings = Settings(model="toy_annotators:colours", top_k=3, encoding="topk", shard_size=4)
    annotate(root / "images", str(root / "labels.zarr"), settings, SERIAL, Observer())
    (root / "labels.zarr" / "commits" / "c.1.0.0").unlink()
    return root / "labels.zarr"


@pytest.fixture(scope="session")
def viewed_partial(partial_store: Path) -> Iterator[Client]:
    """A server of `partial_store`."""
    site = Site(str(partial_store))
    with serving(site) as url:
        yield client_of(url, site)
