"""Stores that somebody made to harm who reads them: refused in words, within bounds, and never a wrong label."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import hostile_values
import numpy as np
import pytest
from hostile_cases import CHANGES, changed, make_case
from hostile_jail import Jail
from hostile_metadata import restate
from hostile_stores import GOLDEN, HostileStore, make_originals, shard_file, with_crc32c

from labelstore import LabelMapReader
from labelstore.errors import DamagedError, FormatError, LabelStoreError, StoreReadError, StoreTooLargeError
from labelstore.schema import Status

CASES = 40


@pytest.fixture(scope="module")
def originals(tmp_path_factory) -> dict[str, Path]:
    return {store.name: store for store in make_originals(tmp_path_factory.mktemp("originals"))}


@pytest.fixture
def topk(originals, tmp_path) -> HostileStore:
    return HostileStore(originals["v1-topk.zarr"], tmp_path / "hostile.zarr")


@pytest.fixture
def extended(originals, tmp_path) -> HostileStore:
    return HostileStore(originals["extended.zarr"], tmp_path / "hostile.zarr")


def test_hostile_stores_are_refused_or_serve_what_they_hold(originals, tmp_path):
    """`make fuzz` does so with 10,000 of them; each is made anew by its number."""
    with Jail(next(iter(originals.values())).parent, tmp_path) as jail:
        for number in range(CASES):
            case = make_case(number, list(originals.values()), tmp_path)
            verdict = jail.try_case(case)
            assert not verdict.problems, (case, verdict.problems[0])
        sealed = changed(CASES, originals["v1-topk.zarr"], tmp_path, [_other_scores], "both")
        assert not jail.try_case(sealed).problems, "whole, as far as a reader can tell"
        assert jail.try_case(replace(sealed, honest=True)).problems, "a label that is not the original's goes unnoticed"


@pytest.mark.slow
def test_the_fuzz_says_what_it_has_seen(tmp_path):
    script = Path(__file__).parents[2] / "benchmarks" / "fuzz_reader.py"
    command = [sys.executable, script, "--cases", "5", "--seed", "7", "--json", tmp_path / "fuzz.json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "fuzz.json").read_text())
    assert (found["cases"], found["first"], found["findings"]) == (5, 7, [])
    assert "5 hostile stores in" in done.stdout


@pytest.mark.parametrize("change", dict.fromkeys(CHANGES), ids=lambda change: change.__name__)
def test_every_change_changes_a_store(change, tmp_path):
    original = GOLDEN / "v1-spectral-id.zarr"
    said = [changed(number, original, tmp_path, [change]).changes[0] for number in range(3)]
    assert not any("not possible" in words for words in said)
    assert any(_contents(tmp_path / f"{number}.zarr") != _contents(original) for number in range(3))


@pytest.mark.parametrize(
    ("file", "make", "error", "words"),
    [
        ("zarr.json", os.mkfifo, FormatError, "expected a file, found a pipe"),
        ("zarr.json", lambda file: file.symlink_to("/dev/zero"), FormatError, "expected a file, found a device"),
        ("zarr.json", lambda file: file.symlink_to(file.name), StoreReadError, "Too many levels"),
        ("zarr.json", lambda file: file.write_bytes(b"[" * 100_000), FormatError, "expected JSON"),
        ("zarr.json", lambda file: file.write_bytes(b"[" * 80 + b"]" * 80), FormatError, "nested 64 deep at most"),
        ("zarr.json", lambda file: file.write_bytes(b"[" + b"[]," * 2_000_000 + b"[]]"), FormatError, "1,048,576 lists"),
        ("zarr.json", lambda file: _sparse(file, 2**40), FormatError, "expected at most"),
        ("zarr.json", lambda file: file.write_bytes(b'{"attributes": "\\ud800"}'), FormatError, "surrogates not allowed"),
        ("classes/zarr.json", os.mkfifo, FormatError, "found a pipe"),
        ("ids/c.0.0", os.mkfifo, DamagedError, "found a pipe"),
        ("ids/c.0.0", lambda file: file.symlink_to("/dev/zero"), DamagedError, "found a device"),
        ("ids/c.0.0", lambda file: file.symlink_to("nowhere"), DamagedError, "missing"),
        ("ids/c.0.0", Path.mkdir, DamagedError, "found a folder"),
        ("ids/c.0.0", lambda file: _sparse(file, 2**40), DamagedError, "expected at most"),
    ],
)
def test_what_is_no_file_of_a_store_is_refused_on_opening(topk, file, make, error, words):
    topk.remove(topk.path / file)
    make(topk.path / file)
    with pytest.raises(error, match=words):
        LabelMapReader(topk.path)


@pytest.mark.parametrize(
    ("file", "make", "words"),
    [
        ("commits/c.0.0.0", os.mkfifo, "found a pipe"),
        ("commits/c.0.0.0", lambda file: _sparse(file, 2**40), "expected at most"),
        ("classes/c.0.0.0.0", Path.mkdir, "found a folder"),
        ("classes/c.0.0.0.0", lambda file: file.symlink_to("/dev/zero"), "found a device"),
        ("status/c.0", lambda file: file.symlink_to("nowhere"), "missing, though shard 0 is committed"),
    ],
)
def test_what_is_no_file_of_a_shard_is_damage(topk, file, make, words):
    topk.remove(topk.path / file)
    make(topk.path / file)
    reader = LabelMapReader(topk.path)
    with pytest.raises(DamagedError, match=words):
        reader.read([0])
    assert reader.read([4]).classes.shape == (1, 3, 4, 6)


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"num_rows": 2**47}, StoreTooLargeError, "no memory for a store of 140,737,488,355,328 rows"),
        ({"num_rows": 10**7}, DamagedError, "ids/c.[0-9]+.0: missing"),
        ({"id_bytes": 65536, "shard_size": 2**16}, FormatError, "'labelstore.shard_size': expected at most 4,096 rows"),
        ({"map_size": [4096, 4096]}, FormatError, "'labelstore.map_size': expected at most 2,796,202 locations of 3 classes"),
        ({"extents": [{"start": 0, "stop": 9}] * 70_000}, FormatError, "'labelstore.extents': expected a list of at most"),
        ({"extents": [{"start": 0, "stop": 2**40}]}, FormatError, "'labelstore.extents': expected the last to end with row 9"),
        ({"distance": {"l1": 10**400}}, FormatError, "'labelstore.distance.l1': expected a number"),
        ({"ids_array": "../ids"}, FormatError, "'labelstore.ids_array': expected"),
    ],
)
def test_dimensions_that_nobody_can_hold_are_refused(topk, changes, error, words):
    restate(topk, changes)
    topk.seal_metadata()
    with pytest.raises(error, match=words):
        LabelMapReader(topk.path)


def test_a_spectral_store_cannot_ask_for_more_than_there_is(originals, tmp_path):
    store = HostileStore(originals["v1-spectral.zarr"], tmp_path / "hostile.zarr")
    spectral = {"classes": 5, "shaped": 3, "patterns": 65_000, "frequencies": [4, 6], "tail_bits": 2}
    restate(store, {"spectral": spectral, "map_size": [300, 300]})
    store.seal_metadata()
    with pytest.raises(FormatError, match=r"'labelstore\.spectral\.patterns'"):
        LabelMapReader(store.path)


def test_metadata_that_was_altered_cannot_turn_labels_into_others(topk):
    """Big-endian ranges decode to other scores, as finite as the true ones."""

    def change(meta: Any) -> None:
        meta["codecs"][0]["configuration"]["endian"] = "big"

    topk.edit("score_range", change)
    with pytest.raises(DamagedError, match=r"score_range/zarr\.json: not what was written.*labelstore repair"):
        LabelMapReader(topk.path)
    topk.seal_metadata()
    assert LabelMapReader(topk.path)[0].scores.max() < -1e20


@pytest.mark.parametrize("codecs", [[7], ["bytes"], [], "bytes", [{"name": "numcodecs.pickle"}], [["bytes"]]])
@pytest.mark.parametrize("place", ["outer", "inner", "index"])
def test_codecs_that_are_none_are_refused(topk, codecs, place):
    def change(meta: Any) -> None:
        inner = meta["codecs"][0]["configuration"]
        if place == "outer":
            meta["codecs"] = codecs
        else:
            inner["codecs" if place == "inner" else "index_codecs"] = codecs

    topk.edit("classes", change)
    topk.seal_metadata()
    with pytest.raises(LabelStoreError, match="zarr-python cannot open this array|is damaged"):
        LabelMapReader(topk.path).read([0])


@pytest.mark.parametrize(("offset", "length"), [(2**63, 50), (10**6, 50), (4, 2**40), (2**64 - 8, 16), (0, 10**6)])
def test_an_index_that_points_anywhere_is_damage(topk, offset, length):
    file = topk.path / "classes" / "c.0.0.0.0"
    data = file.read_bytes()
    table = np.frombuffer(data[-68:-4], "<u8").copy()
    table[2:4] = offset, length
    topk.replace(file, data[:-68] + with_crc32c(table.tobytes()))
    topk.seal_commits()
    with pytest.raises(DamagedError, match="places chunk 1 outside of the file, or makes it too long"):
        LabelMapReader(topk.path).read([0])


@pytest.mark.parametrize("kind", sorted(set(hostile_values.FRAMES) - {"dictionary", "twice", "valid"}))
def test_frames_that_no_writer_makes_are_damage_of_their_row(topk, kind):
    spec = topk.spec("classes")
    chunks = topk.chunks(spec, 0)
    chunks[1] = hostile_values.FRAMES[kind](bytes(spec.row_bytes))
    topk.replace(topk.file(spec, 0), shard_file(chunks, 4))
    topk.seal_commits()
    reader = LabelMapReader(topk.path)
    for rows in ([1], [0, 1, 2]):
        with pytest.raises(DamagedError, match=r"b/é\.png|too long|expected 4 chunks of at most"):
            reader.read(rows)


def test_a_status_that_is_none_is_damage(topk):
    topk.put_column(topk.spec("status"), 0, np.array([1, 1, 77, 1], np.uint8))
    topk.seal_commits()
    with pytest.raises(DamagedError, match=r"status/c\.0: damaged: expected status 0 to 3, found 77"):
        LabelMapReader(topk.path).status([0])


@pytest.mark.parametrize("rows", [[0], [0, 1]])
@pytest.mark.parametrize("pair", [(3.4e38, 0), (-3.4e38, 0), (8e37, 1e36), (np.inf, np.inf), (-np.inf, 0), (np.nan, 1)])
def test_scores_that_leave_float32_are_damage(topk, pair, rows):
    topk.put_column(topk.spec("score_range"), 0, np.array([pair] * 4, np.float32))
    topk.seal_commits()
    with pytest.raises(DamagedError, match="finite down to the last level"):
        LabelMapReader(topk.path).pool(rows, [(0, 0, 1, 1)] * len(rows))


def test_an_id_that_two_rows_have_is_refused(topk):
    ids = np.array([b"twice", b"b.png", b"twice", b"d.png"], "S8").view(np.uint8).reshape(4, 8)
    topk.put_column(topk.spec("ids"), 0, ids)
    with pytest.raises(DamagedError, match="rows 0 and 2 have the same id, 'twice'"):
        LabelMapReader(topk.path)


@pytest.mark.parametrize("raw", [b"..", b"/etc/x", b"a\0b", b"\xff\xfe", b""])
def test_ids_that_are_no_image_ids_lead_to_their_own_row_or_none(topk, raw):
    ids = np.array([raw, b"b.png", b"c.png", b"d.png"], "S8").view(np.uint8).reshape(4, 8)
    topk.put_column(topk.spec("ids"), 0, ids)
    reader, expected = LabelMapReader(topk.path), LabelMapReader(topk.path).read([1])
    np.testing.assert_array_equal(reader.read(["b.png"]).classes, expected.classes)
    try:
        key = reader.ids[0]
        assert reader.ids.row(key) == 0
    except LabelStoreError as error:
        assert "no image id" in str(error) or "expected UTF-8" in str(error)


def test_very_long_ids_are_not_compared_with_one_that_is_unknown(originals, tmp_path):
    """Thousands of ids of 64 KB: to look for similar ones would take hours."""
    store = changed(0, originals["wide.zarr"], tmp_path, [_long_ids]).store
    reader = LabelMapReader(store)
    with pytest.raises(LabelStoreError, match="no image id"):
        reader.read(["x" * 60_000])


def test_holes_have_no_reason_and_no_content(extended):
    reader = LabelMapReader(extended.path)
    assert reader.info.holes == [range(3, 4), range(9, 12)]
    assert (reader.status([3]), reader.error(3), reader.image_crc32(3)) == (Status.HOLE, "", 0)
    assert (reader.status([10]), reader.error(10)) == (Status.HOLE, "")


def test_holes_of_a_shard_that_is_not_committed_are_holes(extended):
    extended.remove(extended.path / "commits" / "c.0.0.0")
    assert LabelMapReader(extended.path).status().tolist() == [0, 0, 0, 3, *[1] * 5, 3, 3, 3, 1, 1]


def _other_scores(store: HostileStore, rng: Random) -> str:
    store.put_column(store.spec("scores"), 0, np.zeros((4, 3, 4, 6), np.uint8))
    return "other scores"


def _long_ids(store: HostileStore, rng: Random) -> str:
    restate(store, {"id_bytes": 65_000, "shard_size": 64})
    spec = replace(store.spec("ids"), row_shape=(65_000,))
    for shard in range(store.info.num_shards):
        rows = store.info.shard_rows(shard)
        ids = [b"x" * 60_000 + f"{row:03}".encode() for row in rows]
        store.put_column(spec, shard, np.array(ids, "S65000").view(np.uint8).reshape(len(rows), -1))
    store.seal_metadata()
    return "long ids"


def _sparse(file: Path, size: int) -> None:
    with file.open("wb") as opened:
        opened.truncate(size)


def _contents(store: Path) -> dict[str, Any]:
    """What lies in a store; of what is no small file only that it is there."""
    return {
        path.relative_to(store).as_posix(): path.read_bytes() if _is_small_file(path) else path.lstat().st_mode
        for path in store.rglob("*")
    }


def _is_small_file(path: Path) -> bool:
    return path.is_file() and not path.is_symlink() and path.stat().st_size < 2**24
