"""Stores that tests of the pipelines change."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest


@pytest.fixture(params=["topk", "spectral"])
def store(request: pytest.FixtureRequest, picture_store: Path, spectral_store: Path, tmp_path: Path) -> Path:
    """A finished store of 21 pictures in six shards of four, once of each encoding."""
    finished = picture_store if request.param == "topk" else spectral_store
    return Path(shutil.copytree(finished, tmp_path / "labels.zarr"))


@pytest.fixture
def topk(picture_store: Path, tmp_path: Path) -> Path:
    """A finished store of 21 pictures in six shards of four, of encoding ``topk``."""
    return Path(shutil.copytree(picture_store, tmp_path / "topk.zarr"))
