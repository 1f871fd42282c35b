"""Small stores to be mutilated: whole ones of both encodings, and copies of them whose checksums can be put right again."""

from __future__ import annotations

import json
import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from labelstore.encodings import committed_arrays
from labelstore.ids import pack_ids
from labelstore.pipelines.files import encode_file
from labelstore.pipelines.store import ShardWriter, create_store
from labelstore.records import AnnotatorRecord, Extent
from labelstore.schema import ATTRIBUTE, ArraySpec, Status, StoreInfo, index_arrays
from labelstore.storage import parse_group
from labelstore.storage.metadata import commits_spec
from labelstore.storage.plain import CHECKSUM_BYTES
from labelstore.storage.seals import SEALS, sealed_attributes

GOLDEN = Path(__file__).parents[1] / "golden"
_ENTRY = 16
_MOST_BYTES = 1 << 23


def make_originals(folder: Path) -> list[Path]:
    """Return whole stores: the golden ones, one that was extended twice, one whose batches are worth threads."""
    for name in ("v1-topk.zarr", "v1-spectral.zarr", "v1-topk-id.zarr"):
        shutil.copytree(GOLDEN / name, folder / name)
    extended = (Extent(0, 3), Extent(4, 9, "/photos"), Extent(12, 14))
    _make_topk(folder / "extended.zarr", 14, 4, extents=extended, target_names=("cats", "dogs"))
    _make_topk(folder / "wide.zarr", 160, 64, class_ids=tuple(f"n{number}" for number in range(6)))
    return sorted(folder.glob("*.zarr"))


def _make_topk(store: Path, rows: int, shard_size: int, **more: Any) -> None:
    ids = pack_ids([f"folder/{row:03}.png" for row in range(rows)])
    record = AnnotatorRecord("painted", "1" * 64, 32, (0.5,) * 3, (0.5,) * 3, "bicubic")
    info = StoreInfo(rows, 6, 2, (2, 3), shard_size, ids.shape[1], record, **more)
    for hole in info.holes:
        ids[hole.start : hole.stop] = 0
    create_store(str(store), info, ids, np.arange(rows, dtype=np.int32) % 6)
    writer, rng = ShardWriter(str(store)), np.random.default_rng(rows)
    for shard in range(info.num_shards):
        arrays = writer.empty_rows(shard)
        count = len(arrays["status"])
        arrays["classes"][:] = np.argsort(rng.random((count, 6, 2, 3)), axis=1)[:, :2]
        arrays["scores"][:] = rng.integers(0, 120, arrays["scores"].shape)
        arrays["score_range"][:] = np.array([5.0, 0.03])
        arrays["status"][:], arrays["image_crc32"][:] = Status.DONE, info.shard_rows(shard)
        writer.write(shard, arrays)


class HostileStore:
    """A copy of a store, and what it was before anybody laid hands on it."""

    def __init__(self, original: Path, path: Path) -> None:
        self.path = path
        shutil.copytree(original, path)
        self.info = parse_group(self.json(""), str(path))
        self.committed = committed_arrays(self.info)
        self.specs: tuple[ArraySpec, ...] = (*self.committed, *index_arrays(self.info), commits_spec(self.info))
        self.data = sorted(file for file in path.rglob("c.*") if file.is_file())

    def meta(self, name: str) -> Path:
        """The ``zarr.json`` of an array, or of the group (``""``)."""
        return self.path / name / "zarr.json"

    def json(self, name: str) -> Any:
        return json.loads(self.read(self.meta(name)))

    def read(self, file: Path) -> bytes:
        """Return what is in a file; an error if it is none any more, or huge."""
        if not _is_plain(file) or file.stat().st_size > _MOST_BYTES:
            raise ValueError(f"{file}: no plain file any more")
        return file.read_bytes()

    def edit(self, name: str, change: Callable[[Any], object]) -> None:
        """Change the JSON of an array or the group in place, where it still is JSON."""
        try:
            found = self.json(name)
            change(found)
            self.meta(name).write_text(json.dumps(found))
        except (OSError, ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError):
            return

    def file(self, spec: ArraySpec, shard: int) -> Path:
        return self.path / spec.name / spec.file_name(shard)

    def spec(self, name: str) -> ArraySpec:
        return next(spec for spec in self.specs if spec.name == name)

    def shards(self) -> list[int]:
        """Shards that were committed."""
        commits = self.specs[-1]
        return [shard for shard in range(self.info.num_shards) if self.file(commits, shard) in self.data]

    def chunks(self, spec: ArraySpec, shard: int) -> list[bytes]:
        """The chunks of a shard file as they were written, by row."""
        data = self.file(spec, shard).read_bytes()
        end = len(data) - CHECKSUM_BYTES
        index = np.frombuffer(data[end - self.info.shard_size * _ENTRY : end], "<u8").reshape(-1, 2).tolist()
        return [data[offset : offset + length] for offset, length in index if offset < len(data)]

    def put_column(self, spec: ArraySpec, shard: int, values: NDArray[Any]) -> None:
        """Write an array's file of one shard anew, as the writer would."""
        self.replace(self.file(spec, shard), encode_file(spec, values, self.info.shard_size))

    def replace(self, file: Path, data: bytes) -> None:
        """Put a plain file in the place of whatever is there."""
        self.remove(file)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)

    def remove(self, file: Path) -> None:
        if file.is_dir() and not file.is_symlink():
            shutil.rmtree(file)
        else:
            file.unlink(missing_ok=True)

    def put(self, file: Path, data: bytes | bytearray, what: str) -> str:
        """`replace`, where there is a folder for it; say what was done."""
        if not file.parent.is_dir():
            return "nothing"
        self.replace(file, bytes(data))
        return f"{self.name(file)}: {what}"

    def name(self, file: Path) -> str:
        return file.relative_to(self.path).as_posix()

    def seal_commits(self) -> None:
        """Make all commits fit the files that lie there now."""
        commits = self.specs[-1]
        for shard in self.shards():
            record, file = [_record(self.file(spec, shard)) for spec in self.committed], self.file(commits, shard)
            if _is_plain(file):
                if commits.row_shape[0] > len(record):  # of which store and of which ids it is stays as it was
                    record.append(tuple(np.frombuffer(_end(file, 36)[:32].ljust(32, b"\0"), "<u8").tolist()))
                self.replace(file, encode_file(commits, np.array([record], np.uint64), 1))

    def seal_metadata(self) -> None:
        """Make the checksums of the metadata fit what it says now."""
        try:
            group = self.json("")
            arrays = {name: self.json(name) for name in list(group["attributes"][SEALS]) if (self.path / name).is_dir()}
            group["attributes"].update(sealed_attributes(group["attributes"][ATTRIBUTE], arrays))
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
            return
        self.edit("commits", lambda meta: meta.update(attributes=group["attributes"]))
        self.meta("").write_text(json.dumps(group))


def _is_plain(file: Path) -> bool:
    try:
        return stat.S_ISREG(file.stat().st_mode)
    except OSError:
        return False


def _end(file: Path, count: int) -> bytes:
    """The last bytes of a file, which may be a huge one."""
    with file.open("rb") as opened:
        return os.pread(opened.fileno(), count, max(os.fstat(opened.fileno()).st_size - count, 0))


def _record(file: Path) -> tuple[int, int, int, int]:
    """What a commit keeps of a file; the checksum of all of it is left out where that is long, as no reader looks at it."""
    if not _is_plain(file):
        return 0, 0, 0, 0
    with file.open("rb") as opened:
        size = os.fstat(opened.fileno()).st_size
        head = os.pread(opened.fileno(), CHECKSUM_BYTES, 0)
        tail = os.pread(opened.fileno(), CHECKSUM_BYTES, max(size - CHECKSUM_BYTES, 0))
        whole = google_crc32c.value(opened.read()) if size < _MOST_BYTES else 0
    return size, int.from_bytes(head, "little"), int.from_bytes(tail, "little"), whole


def any_shard_file(store: HostileStore, rng: Random) -> tuple[ArraySpec, int, Path]:
    """Return an array, a shard and its file, which is there and whole as a file."""
    spec, shard = rng.choice([spec for spec in store.committed if spec.by_row]), rng.choice(store.shards())
    file = store.file(spec, shard)
    if not (_is_plain(file) and 0 < file.stat().st_size < _MOST_BYTES):
        rows = len(store.info.shard_rows(shard))
        store.replace(file, encode_file(spec, np.zeros((rows, *spec.row_shape), spec.numpy_dtype), store.info.shard_size))
    return spec, shard, file


def shard_file(chunks: list[bytes], shard_size: int) -> bytes:
    """Return a shard file of chunks, whatever they are."""
    table = np.full((shard_size, 2), 2**64 - 1, "<u8")
    at = CHECKSUM_BYTES
    for place, data in enumerate(chunks):
        table[place] = at, len(data)
        at += len(data)
    return b"head" + b"".join(chunks) + with_crc32c(table.tobytes())


def with_crc32c(data: bytes) -> bytes:
    """Return bytes and their checksum."""
    return data + int(google_crc32c.value(data)).to_bytes(CHECKSUM_BYTES, "little")
