"""What tests of several packages share: pictures to annotate, and stores made of them by the product itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pictures import paint
from PIL import Image
from runs import SERIAL

from labelstore.pipelines.annotate import annotate
from labelstore.pipelines.observer import Observer
from labelstore.pipelines.settings import Settings
from labelstore.pipelines.sources import ImagesSpec
from labelstore.pipelines.summary import Summary

MakeStore = Callable[..., Summary]


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 21 pictures in three folders; one holds two colours."""
    root = tmp_path_factory.mktemp("pictures")
    for name in ("red", "green", "blue"):
        for number in range(7):
            rng = np.random.default_rng(number)
            noise = Image.fromarray(rng.integers(0, 255, (40, 60, 3), np.uint8))
            plain = Image.open(paint(root / name / f"{number}.png", name))
            Image.blend(plain, noise, 0.1 * number).save(root / name / f"{number}.png")
    paint(root / "blue" / "0.png", "blue", "yellow")
    return root


@pytest.fixture
def make_store(tmp_path: Path) -> MakeStore:
    """A function that annotates a folder with a toy annotator in this process, in encoding ``topk`` unless told otherwise."""

    def make(
        images: Path | ImagesSpec, store: Path | None = None, model: str = "toy_annotators:colours", **choices: Any
    ) -> Summary:
        location = str(store or tmp_path / "labels.zarr")
        choices.setdefault("top_k", 3)
        choices.setdefault("encoding", "topk")
        return annotate(images, location, Settings(model=model, **choices), SERIAL, Observer())

    return make


@pytest.fixture(scope="session")
def picture_store(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished store of `pictures`, encoding ``topk``. Read only: tests that change it copy it."""
    store = tmp_path_factory.mktemp("store") / "labels.zarr"
    settings = Settings(model="toy_annotators:colours", top_k=3, encoding="topk")
    annotate(pictures, str(store), settings, SERIAL, Observer())
    return store


@pytest.fixture(scope="session")
def spectral_store(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished store of `pictures`, encoding ``spectral``. Read only."""
    store = tmp_path_factory.mktemp("spectral") / "labels.zarr"
    settings = Settings(
        model="toy_annotators:colours", top_k=3, encoding="spectral", classes_per_image=5, patterns=3, frequencies=4
    )
    annotate(pictures, str(store), settings, SERIAL, Observer())
    return store
