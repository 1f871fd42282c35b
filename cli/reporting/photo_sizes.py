"""Widths over heights of photographs, out of the files' heads."""

from __future__ import annotations

import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from labelstore.errors import ImageDecodeError, ImagesError
from labelstore.ids import IdTable
from labelstore.pipelines.images import QUIET
from labelstore.pipelines.photographs import Photographs

_AT_ONCE, _FIRST = 8, 8
_ORIENTATION, _SIDEWAYS = 0x0112, (5, 6, 7, 8)


def photo_aspects(photographs: Photographs, ids: IdTable, rows: Sequence[int], exif: str) -> NDArray[np.float64]:
    """Return the width over the height of each row's photograph, as its map sees it; NaN where it is not at hand.

    Where none of the first few is, no others are looked for.

    Parameters
    ----------
    exif
        ``apply``: photographs are turned as their EXIF says.
    """

    def one(row: int) -> float:
        try:
            return _aspect(photographs.root(row).read(ids[row]), exif)
        except (ImagesError, ImageDecodeError):
            return float("nan")

    found = np.full(len(rows), np.nan)
    with ThreadPoolExecutor(_AT_ONCE) as threads:
        found[:_FIRST] = list(threads.map(one, rows[:_FIRST]))
        if not np.isnan(found[:_FIRST]).all():
            found[_FIRST:] = list(threads.map(one, rows[_FIRST:]))
    return found


def _aspect(data: bytes, exif: str) -> float:
    try:
        with QUIET, Image.open(io.BytesIO(data)) as image:
            width, height = image.size
            turned = exif == "apply" and image.getexif().get(_ORIENTATION) in _SIDEWAYS
    except Exception as error:  # whatever Pillow's plug-ins raise for files that are none of theirs
        raise ImageDecodeError(f"no image: {error}") from error
    if not width or not height:
        raise ImageDecodeError("an image without pixels")
    return height / width if turned else width / height
