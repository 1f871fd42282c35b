"""Archives of arrays of somebody else: what they claim is held against what they have, before any of it is unpacked."""

from __future__ import annotations

import os
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest

from labelstore.npz import open_npz


def packed(path: Path, claimed: int) -> Path:
    """An archive of zeros, a member of so many bytes written part by part."""
    packing = zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1)
    with packing as archive, archive.open("logits.npy", "w", force_zip64=True) as member:
        header = {"descr": "|u1", "fortran_order": False, "shape": (claimed,)}
        np.lib.format.write_array_header_2_0(member, header)
        for _ in range(claimed // 2**24):
            member.write(bytes(2**24))
    return path


def test_a_small_archive_that_claims_gigabytes_is_not_unpacked(tmp_path: Path) -> None:
    path = packed(tmp_path / "x.npz", 5 * 2**28)
    assert path.stat().st_size < 2**24
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=r"at most 32 times their bytes, found .* that claim 1,342,"):
            open_npz(path)
        assert tracemalloc.get_traced_memory()[1] < 2**24
    finally:
        tracemalloc.stop()


def test_packed_arrays_of_an_honest_size_are_read(tmp_path: Path) -> None:
    arrays = {"zeros": np.zeros((4, 2**20), np.uint8), "noise": np.random.default_rng(0).normal(size=(4, 100))}
    np.savez_compressed(tmp_path / "x.npz", **arrays)
    for name, column in open_npz(tmp_path / "x.npz").items():
        np.testing.assert_array_equal(column[1:3], arrays[name][1:3])


def test_shapes_whose_product_overflows_are_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive, archive.open("logits.npy", "w") as member:
        header = {"descr": "|u1", "fortran_order": False, "shape": (2**32, 2**32)}  # 2**64 is 0 in 64 bits
        np.lib.format.write_array_header_2_0(member, header)
    with pytest.raises(ValueError, match=r"logits\.npy: expected uint8 \[4294967296, 4294967296\], found 0 bytes"):
        open_npz(tmp_path / "x.npz")


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.npz")
    with pytest.raises(OSError, match="not a file"):
        open_npz(tmp_path / "x.npz")
