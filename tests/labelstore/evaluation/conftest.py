"""A store of pictures of two colours, of which it is known what they show."""

from __future__ import annotations

import pytest
from pictures import paint
from toy_annotators import NAMES

from labelstore import LabelMapReader


@pytest.fixture
def halves(make_store, tmp_path) -> LabelMapReader:
    """Left halves of one colour, right halves of another; their folders say the left one's."""
    for left, right in (("red", "blue"), ("white", "white"), ("blue", "yellow")):
        paint(tmp_path / "images" / left / f"{left}-{right}.png", left, right)
    make_store(tmp_path / "images", top_k=len(NAMES))
    return LabelMapReader(tmp_path / "labels.zarr")
