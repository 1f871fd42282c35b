"""The compute of a shard: what a row keeps, batches fixed by row, and what happens where memory ends."""

from __future__ import annotations

import subprocess
import sys
import zlib
from dataclasses import replace

import numpy as np
import pytest
import torch
from pictures import paint
from toy_annotators import NAMES

from labelstore import LabelMapReader
from labelstore.pipelines.annotators import AnnotatorSpec, EnsembleSpec, load_ensemble
from labelstore.pipelines.loading import LoadSpec, load_batches, load_image
from labelstore.pipelines.maps import Mapper, Stopwatch, to_pixels
from labelstore.pipelines.sources import FilePlace
from labelstore.pixels import AS_IMAGE_FOLDER


@pytest.fixture(scope="module")
def colours():
    return load_ensemble(EnsembleSpec((AnnotatorSpec("toy_annotators:colours"),)))


@pytest.fixture(scope="module")
def info(picture_store):
    return LabelMapReader(picture_store).info


@pytest.fixture
def places(tmp_path):
    return [FilePlace(str(paint(tmp_path / f"{number}.png", NAMES[number % len(NAMES)]))) for number in range(7)]


def load_spec(annotators):
    return LoadSpec(annotators.inputs, AS_IMAGE_FOLDER, threads=2)


def mapped(places, annotators, info, sizes):
    mapper = Mapper(annotators, info, Stopwatch())
    return list(mapper.map(load_batches(places, sizes, load_spec(annotators)))), mapper.notes


def test_batches_are_fixed_by_row_whatever_fails(places, colours, info, tmp_path):
    whole, _ = mapped(places, colours, info, [3, 3, 1])
    (tmp_path / "1.png").write_bytes(b"broken")
    broken, _ = mapped(places, colours, info, [3, 3, 1])
    assert [len(batch.errors) for batch in broken] == [3, 3, 1]
    assert broken[0].errors[1].startswith("cannot be decoded")
    assert broken[0].crc32[1] == zlib.crc32(b"broken")
    assert [error for batch in broken for error in batch.errors].count("") == 6
    for before, after in zip(whole, broken, strict=True):
        kept = [row for row in range(len(after.errors)) if not after.errors[row]]
        for name in after.arrays:
            np.testing.assert_array_equal(after.arrays[name][kept], before.arrays[name][kept])


def test_failed_images_are_black_squares(tmp_path, colours):
    missing = load_image(FilePlace(str(tmp_path / "missing.png")), load_spec(colours))
    assert missing.error == "cannot be read: No such file or directory"
    (pixels,), unreadable = to_pixels([missing], colours)
    assert torch.equal(pixels, torch.zeros(1, 56, 56, 3, dtype=torch.uint8))
    assert unreadable == [""]


class Cramped:
    """An ensemble on a device that has memory for so many images."""

    def __init__(self, annotators, most, error):
        self.annotators, self.most, self.error = annotators, most, error
        self.device, self.inputs, self.info = annotators.device, annotators.inputs, annotators.info
        self.sizes = []

    def logits(self, pixels):
        self.sizes.append(len(pixels[0]))
        if len(pixels[0]) > self.most:
            raise self.error
        return self.annotators.logits(pixels)


OUT_OF_MEMORY = (
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory: you tried ..."),
)


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=["cuda", "cpu"])
def test_out_of_memory_halves_the_batch_says_so_and_loses_nothing(places, colours, info, error):
    cramped = Cramped(colours, 2, error)
    got, notes = mapped(places, cramped, info, [6, 1])
    expected, _ = mapped(places, colours, info, [6, 1])
    assert cramped.sizes == [6, 3, 2, 2, 2, 1] or cramped.sizes == [6, 3, 1, 1, 1, 1, 1, 1, 1]
    assert notes[0] == "out of memory with 6 images at once: going on with 3; see --batch-size"
    assert len(notes) == 2
    for ours, theirs in zip(got, expected, strict=True):
        assert ours.errors == theirs.errors
        for name in theirs.arrays:
            np.testing.assert_array_equal(ours.arrays[name], theirs.arrays[name])


def test_no_memory_for_one_image_and_other_errors_end_the_run(places, colours, info):
    with pytest.raises(torch.OutOfMemoryError):
        mapped(places, Cramped(colours, 0, OUT_OF_MEMORY[0]), info, [2])
    with pytest.raises(RuntimeError, match="something else"):
        mapped(places, Cramped(colours, 0, RuntimeError("something else")), info, [2])


def test_a_store_of_more_classes_than_the_paper_has(places, info):
    annotators = load_ensemble(EnsembleSpec((AnnotatorSpec("toy_annotators:many_classes"),)))
    wide = replace(info, num_classes=21_841, class_names=None, class_ids=None, top_k=5)
    (batch,), _ = mapped(places[:2], annotators, wide, [2])
    assert batch.arrays["classes"].dtype == np.uint16
    assert batch.arrays["classes"].max() > 2**14
    assert batch.errors == ["", ""]


def test_the_compute_of_a_shard_needs_no_store_and_no_engine():
    modules = "maps", "loading", "annotators", "encoders", "device_decode"
    blocked = "zarr", "dask", "distributed", "numcodecs", "zstandard", "google_crc32c", "click", "rich", "timm", "fsspec"
    code = f"import sys\nfor name in {blocked}: sys.modules[name] = None\n"
    code += "\n".join(f"import labelstore.pipelines.{name}" for name in modules)
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.gpu
def test_a_gpu_gives_what_the_cpu_gives(places, info):
    """Batches on several streams, one encoded while the next are computed: not run where there is no CUDA device."""
    spec = EnsembleSpec((AnnotatorSpec("toy_annotators:colours"),), precision="float32")
    here, there = load_ensemble(spec), load_ensemble(spec, "cuda")
    expected, _ = mapped(places * 10, here, info, [10] * 7)
    got, notes = mapped(places * 10, there, info, [10] * 7)
    assert not notes
    for ours, theirs in zip(got, expected, strict=True):
        assert ours.errors == theirs.errors
        np.testing.assert_array_equal(ours.arrays["classes"], theirs.arrays["classes"])
        np.testing.assert_allclose(ours.arrays["score_range"], theirs.arrays["score_range"], rtol=1e-4)
        assert np.abs(ours.arrays["scores"].astype(int) - theirs.arrays["scores"]).max() <= 1
