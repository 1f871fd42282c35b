"""The compute of a shard: what a row keeps, batches fixed by row, and what never waits for ever."""

from __future__ import annotations

import os
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from pictures import paint
from toy_annotators import NAMES

from labelstore import LabelMapReader
from labelstore.pipelines.annotators import AnnotatorSpec, load_annotator
from labelstore.pipelines.maps import Stopwatch, cut_text, load_image, map_batches, to_input


@pytest.fixture(scope="module")
def colours():
    return load_annotator(AnnotatorSpec("toy_annotators:colours"))


def batches_of(paths, colours, info, size):
    with ThreadPoolExecutor(2) as threads:
        return list(map_batches(paths, colours, info, size, threads, Stopwatch()))


def test_batches_are_fixed_by_row_whatever_fails(tmp_path, colours, picture_store):
    info = LabelMapReader(picture_store).info
    paths = [paint(tmp_path / f"{number}.png", NAMES[number % len(NAMES)]) for number in range(7)]
    whole = batches_of(paths, colours, info, 3)
    paths[1].write_bytes(b"broken")
    broken = batches_of(paths, colours, info, 3)
    assert [batch.start for batch in broken] == [0, 3, 6]
    assert broken[0].errors[1].startswith("cannot be decoded")
    assert broken[0].crc32[1] == zlib.crc32(b"broken")
    assert [error for batch in broken for error in batch.errors].count("") == 6
    for before, after in zip(whole, broken, strict=True):
        kept = [row for row in range(len(after.errors)) if not after.errors[row]]
        for name in after.arrays:
            np.testing.assert_array_equal(after.arrays[name][kept], before.arrays[name][kept])


def test_failed_images_are_black_squares(tmp_path, colours):
    missing = load_image(tmp_path / "missing.png", colours.info.preprocessing, "ignore")
    assert missing.error == "cannot be read: No such file or directory"
    assert torch.equal(to_input([missing], colours), torch.zeros(1, 3, 56, 56))


def test_a_pipe_is_not_waited_for(tmp_path, colours):
    os.mkfifo(tmp_path / "pipe.png")
    assert load_image(tmp_path / "pipe.png", colours.info.preprocessing, "ignore").error == "cannot be read: not a file"


def test_reasons_are_cut_between_characters():
    assert cut_text("short") == b"short"
    assert cut_text("é" * 100) == "é".encode() * 80
    assert cut_text("x" + "é" * 100) == b"x" + "é".encode() * 79
    assert cut_text("\udcff") == b"?"
