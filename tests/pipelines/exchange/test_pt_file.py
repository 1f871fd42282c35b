"""Files of one tensor: read as torch reads them, and what is refused."""

from __future__ import annotations

import contextlib
import os
import pickle
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from labelstore.errors import MapsError
from labelstore.pipelines.exchange import pt_file
from labelstore.pipelines.exchange.pt_file import PtReader

VALUES = torch.arange(2 * 3 * 4 * 5, dtype=torch.float32).reshape(2, 3, 4, 5) / 7


@pytest.fixture
def save(tmp_path):
    def write(value, name="map.pt", **how) -> str:
        torch.save(value, tmp_path / name, **how)
        return str(tmp_path / name)

    return write


def rewrite(path, to, change=lambda name, data: data, method=zipfile.ZIP_STORED):
    """Write an archive anew, with each of its records changed or packed."""
    with zipfile.ZipFile(path) as before, zipfile.ZipFile(to, "w") as after:
        for entry in before.infolist():
            after.writestr(entry.filename, change(entry.filename, before.read(entry)), compress_type=method)


def loads_of(monkeypatch) -> list[int]:
    """How many files have gone through torch: one entry each."""
    found: list[int] = []
    load = pt_file._load

    def counted(data: bytes) -> torch.Tensor:
        found.append(len(data))
        return load(data)

    monkeypatch.setattr(pt_file, "_load", counted)
    return found


@pytest.mark.parametrize(
    "tensor",
    [
        VALUES,
        VALUES.half(),
        VALUES.double(),
        VALUES.permute(0, 1, 3, 2),
        VALUES.permute(3, 2, 1, 0),
    ],
    ids=["float32", "float16", "float64", "transposed", "reversed"],
)
def test_the_second_file_of_a_kind_is_read_without_torch(tensor, save, monkeypatch):
    reader, loads = PtReader(), loads_of(monkeypatch)
    first, second = save(tensor, "first.pt"), save(-tensor, "second, with a longer name.pt")
    np.testing.assert_array_equal(reader.read(first), tensor.numpy())
    assert len(loads) == 1
    found = reader.read(second)
    assert len(loads) == 1
    np.testing.assert_array_equal(found, -tensor.numpy())
    assert found.dtype == tensor.numpy().dtype


@pytest.mark.parametrize(
    ("tensor", "how"),
    [
        (VALUES, {"_use_new_zipfile_serialization": False}),
        (torch.cat([VALUES, VALUES])[1:3], {}),
        (VALUES.bfloat16(), {}),
        (VALUES.clone().requires_grad_(), {}),
        (torch.nn.Parameter(VALUES), {}),
    ],
    ids=["the format before 1.6", "a part of a larger one", "bfloat16", "with a gradient", "parameter"],
)
def test_other_files_are_read_by_torch_each_time(tensor, how, save, monkeypatch):
    reader, loads = PtReader(), loads_of(monkeypatch)
    path = save(tensor, **how)
    for _ in range(2):
        np.testing.assert_array_equal(reader.read(path), tensor.detach().float().numpy())
    assert len(loads) == 2


def test_tensors_of_a_gpu_are_known_as_well(save, tmp_path, monkeypatch):
    """The pickle of a tensor that lay on another device names it, and is the same otherwise."""
    path, moved = save(VALUES), tmp_path / "moved.pt"
    cpu, cuda = b"X\x03\x00\x00\x00cpu", b"X\x06\x00\x00\x00cuda:3"
    rewrite(path, moved, lambda name, data: data.replace(cpu, cuda))
    assert cuda in moved.read_bytes()
    reader, loads = PtReader(), loads_of(monkeypatch)
    for _ in range(2):
        np.testing.assert_array_equal(reader.read(str(moved)), VALUES.numpy())
    assert len(loads) == 1


def test_every_flipped_bit_of_a_file_is_found_or_changes_nothing(save):
    reader = PtReader()
    path = save(VALUES)
    reader.read(path)
    good = Path(path).read_bytes()
    refused = 0
    for place in range(0, len(good), 3):
        bad = bytearray(good)
        bad[place] ^= 1 << place % 8
        Path(path).write_bytes(bad)
        try:
            found = reader.read(path)
        except MapsError:
            refused += 1
        else:
            np.testing.assert_array_equal(found, VALUES.numpy())
    assert refused > VALUES.numel()  # what is not refused is padding, dates and the like


class Bomb:
    def __reduce__(self):
        return os.system, ("touch /tmp/labelstore-was-here",)


@pytest.mark.parametrize("new", [True, False])
def test_a_pickle_that_runs_a_command_is_refused(save, new, tmp_path, monkeypatch):
    ran = []
    monkeypatch.setattr(os, "system", ran.append)
    with pytest.raises(MapsError, match="a pickle that asks for more, or none: it is not loaded"):
        PtReader().read(save({"maps": VALUES, "bomb": Bomb()}, _use_new_zipfile_serialization=new))
    (tmp_path / "plain.pt").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(MapsError, match="not loaded"):
        PtReader().read(str(tmp_path / "plain.pt"))
    assert ran == []


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"a": VALUES}, "expected a tensor, got a dict"),
        ([1.0], "expected a tensor, got a list"),
        (VALUES.to_sparse(), "expected a tensor, got a torch.sparse_coo one"),
        (VALUES.to(torch.float8_e4m3fn), "expected a tensor of plain numbers, got torch.float8_e4m3fn"),
    ],
)
def test_what_is_no_plain_tensor_is_refused(value, message, save):
    with pytest.raises(MapsError, match=message):
        PtReader().read(save(value))


def test_files_that_are_no_archives(tmp_path):
    reader = PtReader()
    for content, message in (
        (b"", "an empty file"),
        (b"PK\3\4", "got what is damaged: File is not a zip file"),
        (b"\0" * 1000, "not loaded|cannot load"),
        (b"hello", "not loaded|cannot load"),
    ):
        (tmp_path / "bad.pt").write_bytes(content)
        with pytest.raises(MapsError, match=message):
            reader.read(str(tmp_path / "bad.pt"))
    with pytest.raises(MapsError, match="cannot be read: No such file"):
        reader.read(str(tmp_path / "none.pt"))
    with pytest.raises(MapsError, match="cannot be read: Is a directory"):
        reader.read(str(tmp_path))
    os.mkfifo(tmp_path / "pipe.pt")
    with pytest.raises(MapsError, match="an empty file"):
        reader.read(str(tmp_path / "pipe.pt"))


def test_a_file_that_is_too_large_is_not_read(tmp_path):
    with (tmp_path / "large.pt").open("wb") as file:
        file.truncate(pt_file.MOST_BYTES + 1)
    with pytest.raises(MapsError, match="expected a label map, got a file of more than"):
        PtReader().read(str(tmp_path / "large.pt"))


def test_an_archive_of_few_bytes_that_unpack_to_many_is_refused(save, tmp_path):
    packed = tmp_path / "packed.pt"
    rewrite(save(torch.zeros(2, 5, 100, 100)), packed, method=zipfile.ZIP_DEFLATED)
    with pytest.raises(MapsError, match=r"got one of [\d,]+ bytes that claims 400,"):
        PtReader().read(str(packed))


def test_a_packed_record_that_is_damaged(save, tmp_path):
    packed = tmp_path / "packed.pt"
    rewrite(save(torch.rand(2, 5, 20, 20)), packed, method=zipfile.ZIP_DEFLATED)
    assert PtReader().read(str(save(torch.rand(2, 5, 20, 20)))).shape == (2, 5, 20, 20)
    good = packed.read_bytes()
    for place in range(100, len(good) - 2000, 997):
        packed.write_bytes(good[:place] + bytes([good[place] ^ 0xFF]) + good[place + 1 :])
        with pytest.raises(MapsError):
            PtReader().read(str(packed))


def test_a_record_that_is_there_twice_is_left_to_torch(save, tmp_path, monkeypatch):
    path, twice = save(VALUES), tmp_path / "twice.pt"
    reader, loads = PtReader(), loads_of(monkeypatch)
    reader.read(path)
    rewrite(path, twice)
    with zipfile.ZipFile(twice, "a") as after, pytest.warns(UserWarning, match="Duplicate name"):
        after.writestr("map/data/0", np.zeros(VALUES.numel(), np.float32).tobytes())
    with contextlib.suppress(MapsError):
        reader.read(str(twice))
    assert len(loads) == 2


def test_a_storage_that_is_shorter_than_the_pickle_says(save, tmp_path, monkeypatch):
    path, short = save(VALUES), tmp_path / "short.pt"
    reader = PtReader()
    reader.read(path)
    rewrite(path, short, lambda name, data: data[:100] if name == "map/data/0" else data)
    with pytest.raises(MapsError):
        reader.read(str(short))


def test_big_endian_files_are_left_to_torch(save, tmp_path):
    path, other = save(VALUES), tmp_path / "big.pt"
    reader = PtReader()
    reader.read(path)
    swapped = {"map/data/0": struct.pack(f">{VALUES.numel()}f", *VALUES.flatten().tolist()), "map/byteorder": b"big"}
    rewrite(path, other, lambda name, data: swapped.get(name, data))
    np.testing.assert_array_equal(reader.read(str(other)), VALUES.numpy())
