"""The bytes of a shard's files, read back by three Zarr libraries and by our own reader."""

from __future__ import annotations

from pathlib import Path

import google_crc32c
import numpy as np
import pytest
import tensorstore
import zarr

from labelstore import DamagedError
from labelstore.pipelines.arrays import create_array
from labelstore.pipelines.files import commit_record, encode_file
from labelstore.schema import ArraySpec
from labelstore.storage.chunks import DataFile, largest_chunk, read_chunk, read_index
from labelstore.storage.frames import decode_frames
from labelstore.storage.plain import check_plains

SPECS = [
    ArraySpec("classes", "uint16", (3, 2, 5), 65535, by_row=True),
    ArraySpec("scores", "uint8", (2, 4, 4), 0, by_row=True),
    ArraySpec("score_range", "float32", (2,), 0.0),
    ArraySpec("status", "uint8", (), 0, padding=3),
    ArraySpec("spectra", "uint8", (12,), 0, by_row=True, compressed=False),
    ArraySpec("ids", "uint8", (8,), 0, committed=False),
    ArraySpec("commits", "uint64", (6, 4), 0, committed=False, compressed=False),
]
SHARD, ROWS = 4, 10  # the last shard has two rows


def by_zarr(path: Path) -> np.ndarray:
    return np.asarray(zarr.open_array(path, mode="r")[...])


def by_zarrs(path: Path) -> np.ndarray:
    with zarr.config.set({"codec_pipeline.path": "zarrs.ZarrsCodecPipeline"}):
        return by_zarr(path)


def by_tensorstore(path: Path) -> np.ndarray:
    spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(path)}}
    return np.asarray(tensorstore.open(spec, read=True).result().read().result())


def random_values(spec: ArraySpec) -> np.ndarray:
    values = np.random.default_rng(0).integers(0, 200, (ROWS, *spec.row_shape)).astype(spec.numpy_dtype)
    values[1] = spec.fill  # a row of fill values is kept too
    return values


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
@pytest.mark.parametrize("library", [by_zarr, by_zarrs, by_tensorstore])
def test_others_read_what_we_write(tmp_path, spec, library):
    create_array(zarr.create_group(tmp_path / "g"), spec, ROWS, SHARD)
    values = random_values(spec)
    for shard in range(3):
        data = encode_file(spec, values[shard * SHARD : (shard + 1) * SHARD], SHARD)
        (tmp_path / "g" / spec.name / spec.file_name(shard)).write_bytes(data)
    np.testing.assert_array_equal(library(tmp_path / "g" / spec.name), values)


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_we_read_what_zarr_writes(tmp_path, spec):
    group = zarr.create_group(tmp_path / "g")
    create_array(group, spec, ROWS, SHARD)
    values = random_values(spec)
    group[spec.name].with_config({"write_empty_chunks": True})[:] = values
    file = tmp_path / "g" / spec.name / spec.file_name(1)
    if spec.by_row:
        data = DataFile(str(file))
        frames = [
            data.read(offset, length) for offset, length in zip(*read_index(data, SHARD, largest_chunk(spec)), strict=True)
        ]
        room = bytearray(SHARD * spec.row_bytes)
        if spec.compressed:
            decode_frames(frames, spec.row_bytes, memoryview(room))
        else:
            room = bytearray(check_plains(frames, spec.row_bytes).tobytes())
        found = np.frombuffer(room, spec.numpy_dtype).reshape(SHARD, *spec.row_shape)
    else:
        found = read_chunk(str(file), spec, SHARD)
    np.testing.assert_array_equal(found, values[SHARD : 2 * SHARD])


def sealed(index: np.ndarray) -> bytes:
    raw = index.astype("<u8").tobytes()
    return raw + google_crc32c.value(raw).to_bytes(4, "little")


def test_an_index_tells_missing_chunks_and_refuses_those_outside_of_the_file(tmp_path):
    absent, file = 2**64 - 1, tmp_path / "c.0"
    file.write_bytes(bytes(100) + sealed(np.array([[0, 50], [absent, absent], [50, 50], [99, 1]], np.uint64)))
    offsets, lengths = read_index(DataFile(str(file)), SHARD, 100)
    assert (offsets.tolist(), lengths.tolist()) == ([0, 0, 50, 99], [50, 0, 50, 1])
    for wrong in ([50, 51], [101, 0], [absent, 1], [1, absent], [2**63, 2**63]):
        file.write_bytes(bytes(100) + sealed(np.array([[0, 50], [0, 1], wrong, [99, 1]], np.uint64)))
        with pytest.raises(DamagedError, match="the index places chunk 2"):
            read_index(DataFile(str(file)), SHARD, 100)


def test_the_commit_record():
    data = encode_file(SPECS[0], random_values(SPECS[0])[:2], SHARD)
    length, head, tail, crc = commit_record(data)
    index, chunks = data[-(SHARD * 16 + 4) : -4], data[4 : -(SHARD * 16 + 4)]
    first, second = (int(end) for end in np.cumsum(np.frombuffer(index, "<u8")[1:4:2]))
    checksums = chunks[first - 4 : first] + chunks[second - 4 : second]
    assert second == len(chunks)
    assert (length, crc) == (len(data), google_crc32c.value(data))
    assert (head, tail) == (google_crc32c.value(checksums), google_crc32c.value(index))


def test_files_of_the_same_length_and_index_differ_at_their_start():
    """Else a commit would take one for the other when it is looked at quickly."""
    spec = next(spec for spec in SPECS if spec.name == "spectra")
    one, other = (commit_record(encode_file(spec, values, SHARD)) for values in (np.zeros((4, 12)), np.ones((4, 12))))
    assert (one[0], one[2]) == (other[0], other[2])
    assert one[1] != other[1]
    assert one[3] != other[3]


def test_rows_that_a_last_shard_does_not_have_are_holes(tmp_path):
    spec = next(spec for spec in SPECS if spec.name == "status")
    (tmp_path / "c.0").write_bytes(encode_file(spec, np.ones(2), SHARD))
    assert read_chunk(str(tmp_path / "c.0"), spec, SHARD).tolist() == [1, 1, 3, 3]


@pytest.mark.parametrize("name", ["ids", "commits"])
def test_any_flipped_bit_of_a_file_that_no_commit_seals_is_seen(tmp_path, name):
    spec = next(spec for spec in SPECS if spec.name == name)
    data = encode_file(spec, random_values(spec)[:4], SHARD)
    for bit in range(8 * len(data)):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        (tmp_path / "c.0").write_bytes(flipped)
        with pytest.raises(DamagedError):
            read_chunk(str(tmp_path / "c.0"), spec, SHARD)


@pytest.mark.parametrize("values", [np.zeros((5, 3, 2, 5)), np.zeros((2, 3, 2, 4)), np.zeros((3, 2, 5))])
def test_wrong_shapes_are_refused(values):
    with pytest.raises(ValueError, match=r"classes: expected up to 4 rows of \(3, 2, 5\)"):
        encode_file(SPECS[0], values, SHARD)
