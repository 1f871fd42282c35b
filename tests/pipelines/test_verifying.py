"""`verify`: every flipped bit, cut and lost file is found, and every value that no label map has, with where it is."""

from __future__ import annotations

import json
import os
import random
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import fsspec
import numpy as np
import pytest
from commands import environment
from damage import Damage, deletions, die, flips, keys_of, labels_of, rewrite, served, truncations
from folders import HALF, contents, edit_attributes
from pictures import paint
from runs import SERIAL

from labelstore import FormatError, StoreNotFoundError
from labelstore.encodings import committed_arrays
from labelstore.errors import RunError, StoreTooLargeError, UnfinishedStoreError
from labelstore.pipelines import verifying
from labelstore.pipelines.annotate import annotate
from labelstore.pipelines.index import write_index
from labelstore.pipelines.lock import store_lock
from labelstore.pipelines.observer import Observer
from labelstore.pipelines.repairing import repair_store
from labelstore.pipelines.settings import Settings
from labelstore.pipelines.shard_check import check_shard
from labelstore.pipelines.sink import open_sink
from labelstore.pipelines.verifying import Problem, Verification, verify_store
from labelstore.schema import UNFINISHED, index_arrays
from labelstore.storage import open_source, patience

GOLDEN = Path(__file__).parent.parent / "golden"


def verify(store: Path | str, **how) -> Verification:
    return verify_store(str(store), 1, Observer(), **how)


def only_problem(store: Path) -> Problem:
    found = verify(store)
    assert len(found.problems) == 1, found.problems
    return found.problems[0]


# Stores without a fault


def test_a_finished_store_is_whole(store):
    found = verify(store)
    assert found.whole
    assert (found.rows["done"], found.rows["failed"], found.rows["pending"], found.committed) == (21, 0, 0, 6)
    assert (found.damaged, found.lost, found.left_over, found.strangers, found.metadata) == ([], {}, [], [], False)


@pytest.mark.parametrize("encoding", ["topk", "spectral"])
def test_an_unfinished_store_with_a_failed_row_has_no_problem_but_is_not_whole(encoding):
    found = verify(GOLDEN / f"v1-{encoding}.zarr")
    assert not found.problems
    assert not found.whole
    assert (found.rows["done"], found.rows["failed"], found.rows["pending"], found.committed) == (7, 1, 1, 2)


def extend(store: Path, tmp_path: Path) -> Path:
    """Add six pictures, one with an id longer than those of the store."""
    for number in range(5):
        paint(tmp_path / "more" / "cyan" / f"{number}.png", "cyan")
    paint(tmp_path / "more" / "green" / "a longer name.png", "green")
    annotate(tmp_path / "more", str(store), Settings("toy_annotators:colours"), SERIAL, Observer(), extend=True)
    return store


def test_a_store_that_was_extended_is_whole(store, tmp_path):
    found = verify(extend(store, tmp_path))
    assert found.whole
    assert (found.rows["done"], found.info.num_images, found.committed, found.info.ids_array) == (27, 27, 8, "ids_1")


def behind_a_url(store: Path, tmp_path: Path) -> str:
    url = f"memory://bucket/{tmp_path.name}.zarr"
    for key, data in contents(store).items():
        fsspec.filesystem("memory").pipe(f"/bucket/{tmp_path.name}.zarr/{key}", data)
    return url


def test_a_store_behind_a_url(store, tmp_path):
    url = behind_a_url(store, tmp_path)
    assert verify(url).whole
    for key in ("status/c.2", "zarr.json", "ids/c.1.0", "classes/zarr.json"):
        if (store / key).exists():
            fsspec.filesystem("memory").rm(f"/bucket/{tmp_path.name}.zarr/{key}")
    fsspec.filesystem("memory").pipe(f"/bucket/{tmp_path.name}.zarr/notes.txt", b"")
    found = verify(url)
    assert {(problem.file, problem.message.split(",")[0]) for problem in found.problems} == {
        ("status/c.2", "missing"),
        ("zarr.json", "missing"),
        ("ids/c.1.0", "missing"),
        ("notes.txt", "no file of a label store"),
        *([("classes/zarr.json", "missing")] if (store / "classes").exists() else []),
    }
    with pytest.raises(StoreNotFoundError):
        verify("memory://bucket/nothing.zarr")


def test_processes_find_what_one_finds(store, monkeypatch):
    for damage in (*flips(store, 20, random.Random(0)), *deletions(store, 12, random.Random(0))):
        if not damage.key.endswith("zarr.json"):
            damage.do(store)
    alone = verify_store(str(store), 1, Observer())
    monkeypatch.setattr(verifying, "_ROWS_A_TASK", 8)  # three tasks of two shards
    assert verify_store(str(store), 2, Observer()) == alone
    assert len(alone.problems) > 5


# Every bit, every cut, every file


def is_named(key: str, found: Verification) -> bool:
    """Whether a file is among those with problems. A wrong checksum in ``zarr.json`` is seen in the files that it is of."""
    return key in {problem.file for problem in found.problems} or (key == "zarr.json" and found.metadata)


def assert_found(store: Path, damage: Damage, truth: np.ndarray) -> None:
    """The damage is found and located, and the reader serves the right labels or none, those of other shards always."""
    before = (store / damage.key).read_bytes()
    if damage.data == before:
        return
    damage.do(store)
    found = verify(store)
    rows = served(store, truth)
    (store / damage.key).write_bytes(before)
    assert not found.whole, damage
    array, name = damage.key.rsplit("/", 1) if "/" in damage.key else ("", damage.key)
    if array == "commits" and damage.data is None and name != "zarr.json":
        assert (found.problems, found.rows["pending"]) == ([], len(truth) - len(rows)), damage
    else:
        assert is_named(damage.key, found), damage
    if name != "zarr.json" and array not in ("ids", "targets"):
        shard = int(name.split(".")[1])
        assert rows is not None, damage
        assert {row for row in range(len(truth)) if row // 4 != shard} <= set(rows), damage


def test_every_flipped_bit_is_found_and_none_is_served(store):
    truth = labels_of(store)
    for damage in flips(store, 4 * len(keys_of(store)), random.Random(1)):
        assert_found(store, damage, truth)


def test_every_cut_and_every_lost_file_is_found(store):
    truth = labels_of(store)
    for damage in (
        *truncations(store, 2 * len(keys_of(store)), random.Random(2)),
        *deletions(store, len(keys_of(store)), random.Random(3)),
    ):
        assert_found(store, damage, truth)


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["topk", "spectral"])
def test_every_fifth_bit_of_a_small_store(encoding, tmp_path):
    store = Path(shutil.copytree(GOLDEN / f"v1-{encoding}.zarr", tmp_path / "golden.zarr"))
    for key in keys_of(store):
        data = (store / key).read_bytes()
        for bit in range(0, 8 * len(data), 5):
            flipped = bytearray(data)
            flipped[bit // 8] ^= 1 << bit % 8
            (store / key).write_bytes(flipped)
            found = verify(store)
            assert is_named(key, found), (key, bit)
        (store / key).write_bytes(data)


def test_a_wrong_letter_in_the_name_of_the_checksums_is_found(topk):
    data = (topk / "zarr.json").read_bytes()
    (topk / "zarr.json").write_bytes(data.replace(b"labelstore_seals", b"labelstore_seaLs"))
    assert only_problem(topk).file == "zarr.json"


def test_a_file_of_another_shard_is_found(store):
    truth, name = labels_of(store), committed_arrays(open_source(store)[1])[0].name
    one, other = sorted((store / name).glob("c.*"))[:2]
    shutil.copy(other, one)
    found = verify(store)
    assert (found.damaged, found.rows["damaged"]) == ([0], 4)
    assert served(store, truth) == list(range(4, 21))


@pytest.mark.parametrize("copies", ["broken", "gone"])
def test_metadata_that_are_lost_in_both_places(topk, copies):
    for key in ("zarr.json", "commits/zarr.json"):
        (topk / key).write_text("{") if copies == "broken" else (topk / key).unlink()
    words = "the copy in commits/zarr.json cannot be used either" if copies == "broken" else "a folder without zarr.json"
    with pytest.raises(FormatError, match=words):
        verify(topk)


# What is no store


def test_nothing_an_empty_folder_and_something_else(tmp_path):
    with pytest.raises(StoreNotFoundError):
        verify(tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(StoreNotFoundError):
        verify(tmp_path / "empty")
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1.tex").touch()
    with pytest.raises(FormatError, match=r"found a folder without zarr\.json$"):
        verify(tmp_path / "thesis")
    with pytest.raises(FormatError, match="found a file"):
        verify(tmp_path / "thesis" / "chapter1.tex")


@pytest.mark.parametrize("copy", [True, False], ids=["copy written", "copy not written"])
def test_a_creation_that_was_cut_off(topk, copy):
    root = json.loads((topk / "zarr.json").read_text())
    (topk / "zarr.json").write_text(json.dumps({**root, "attributes": {UNFINISHED: True}}))
    if not copy:
        commits = json.loads((topk / "commits" / "zarr.json").read_text())
        (topk / "commits" / "zarr.json").write_text(json.dumps({**commits, "attributes": {}}))
    with pytest.raises(UnfinishedStoreError, match="run annotate again"):
        verify(topk)


def test_a_store_of_a_later_version_is_not_called_damaged(topk):
    edit_attributes(topk, lambda attributes: attributes.update({"format_version": 2}))
    with pytest.raises(FormatError, match="pip install --upgrade labelstore"):
        verify(topk)


def test_a_store_that_keeps_no_checksums_of_its_metadata(topk):
    edit_attributes(topk, lambda attributes: None)
    assert verify(topk).whole


def test_a_store_with_other_names_of_files_can_only_be_read(topk):
    edit_attributes(topk, lambda attributes: None)
    meta = json.loads((topk / "status" / "zarr.json").read_text())
    meta["chunk_key_encoding"]["configuration"]["separator"] = "/"
    (topk / "status" / "zarr.json").write_text(json.dumps(meta))
    for shard in range(6):
        (topk / "status" / "c").mkdir(exist_ok=True)
        (topk / "status" / f"c.{shard}").rename(topk / "status" / "c" / str(shard))
    with pytest.raises(FormatError, match="neither verified nor repaired"):
        verify(topk)


# Ids and labels


def write_ids(store: Path, change) -> None:
    source, info = open_source(store)
    columns = {spec.name: source.index_array(spec).copy() for spec in index_arrays(info)}
    change(columns)
    write_index(open_sink(str(store)), info, columns, range(info.num_shards))


def put_id(row: int, text: bytes):
    def change(columns):
        columns["ids"][row] = 0
        columns["ids"][row, : len(text)] = np.frombuffer(text, np.uint8)

    return change


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"", "expected an id, not empty"),
        (b"../x.png", "without NUL and '..'"),
        (b"a/../b", "without NUL and '..'"),
        (b"a\0b", "without NUL"),
        (b"\xff\xfe", "expected an id in UTF-8"),
    ],
)
def test_an_id_that_no_image_has(topk, text, words):
    write_ids(topk, put_id(6, text))
    found = verify(topk)
    problem = only_problem(topk)
    assert (problem.file, problem.shard, problem.row) == ("ids/c.1.0", 1, 6)
    assert words in problem.message
    assert found.lost == {"ids": {1}}
    assert found.damaged == []


def test_an_id_twice(topk):
    write_ids(topk, lambda columns: columns["ids"].__setitem__(13, columns["ids"][6]))
    found = verify(topk)
    assert [(problem.file, problem.row, problem.message) for problem in found.problems] == [
        ("ids/c.1.0", 6, "row 13 has the same id"),
        ("ids/c.3.0", 13, "row 6 has the same id"),
    ]
    assert {problem.image_id for problem in found.problems} == {"blue/6.png"}
    assert found.lost == {"ids": {1, 3}}


@pytest.mark.parametrize("label", [3, -2])
def test_a_label_that_there_is_not(topk, label):
    write_ids(topk, lambda columns: columns["targets"].__setitem__(6, label))
    problem = only_problem(topk)
    assert (problem.file, problem.shard, problem.row) == ("targets/c.1", 1, 6)
    assert problem.message == f"expected labels from -1 to 2, found {label}"


# Files that are left over, and others


def test_what_a_cut_off_run_leaves_is_told_from_other_files(topk):
    left = [f"classes/c.1.0.0.0.{HALF}", f"zarr.json.{HALF}", "status/c.6", "commits/c.9.0.0", "ids_1/c.0.0"]
    strange = ["notes.txt", "classes/notes.txt", "mine/c.0", "mine/zarr.json", "status/c.01", "status/c.0.0"]
    for key in (*left, *strange):
        (topk / key).parent.mkdir(exist_ok=True)
        (topk / key).touch()
    (topk / "scores" / "empty").mkdir()
    assert sorted(verify(topk).left_over) == sorted(left)
    (topk / "ids" / "deep").mkdir()
    (topk / "ids" / "deep" / "c.0").touch()
    found = verify(topk)
    assert sorted(found.strangers) == sorted([*strange, "scores/empty/", "ids/deep/"])
    assert len(found.problems) == len(left) + len(strange) + 2
    assert (found.damaged, found.rows["done"]) == ([], 21)


def test_a_folder_in_the_place_of_a_file(topk):
    (topk / "status" / "c.1").unlink()
    (topk / "status" / "c.1").mkdir()
    found = verify(topk)
    assert {(problem.file, problem.message) for problem in found.problems} == {
        ("status/c.1", "expected a file"),
        ("status/c.1/", "no file of a label store"),
    }


@pytest.mark.parametrize("key", ["scores", "scores/c.1.0.0.0", "zarr.json", "commits/zarr.json", "ids"])
def test_links_are_gone_through_only_where_that_is_asked_for(topk, tmp_path, key):
    (topk / key).rename(tmp_path / "elsewhere")
    (topk / key).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(FormatError, match=f"{key}: expected a file or folder of the store's, found a link"):
        verify(topk)
    assert verify(topk, links=True).whole
    (tmp_path / "linked.zarr").symlink_to(topk)
    with pytest.raises(FormatError, match="found a link"):
        verify(tmp_path / "linked.zarr")


@pytest.mark.parametrize("key", ["commits", "commits/zarr.json"])
def test_a_link_in_the_place_of_the_attributes_copy_is_refused_where_the_group_is_damaged_too(topk, tmp_path, key):
    """Nothing is known of the store then; it is a link all the same, and no file that cannot be read now."""
    (topk / "zarr.json").write_bytes(b"damaged")
    (topk / key).rename(tmp_path / "elsewhere")
    (topk / key).symlink_to(tmp_path / "elsewhere")
    for command in (verify, lambda store: repair_store(str(store), 1, Observer())):
        with pytest.raises(FormatError, match=f"{key}: expected a file or folder of the store's, found a link"):
            command(topk)


@pytest.mark.parametrize("kind", ["nothing", "file", "pipe"])
def test_what_is_no_folder_in_the_place_of_the_commits_is_damage(topk, kind):
    shutil.rmtree(topk / "commits")
    {"nothing": lambda _: None, "file": Path.touch, "pipe": os.mkfifo}[kind](topk / "commits")
    assert verify(topk).problems


def test_a_store_whose_folder_is_a_link_is_a_store(topk, tmp_path):
    (tmp_path / "linked.zarr").symlink_to(topk)
    assert verify(tmp_path / "linked.zarr").whole


def test_a_link_of_somebody_else_is_named(topk):
    (topk / "scores" / "loop").symlink_to(topk)
    problem = only_problem(topk)
    assert (problem.file, problem.message) == ("scores/loop", "a link, no file of a label store")


# Stores of strangers


@pytest.mark.parametrize(
    "key", ["zarr.json", "status/c.1", "scores/c.1.0.0.0", "commits/c.1.0.0", "ids/c.1.0", "status/zarr.json"]
)
@pytest.mark.parametrize("kind", ["pipe", "socket", "sparse"])
def test_what_must_not_be_waited_for_or_read_whole(topk, key, kind):
    file = topk / key
    if kind == "sparse":
        with file.open("r+b") as opened:
            opened.truncate(200 << 30)
    else:
        file.unlink()
        os.mkfifo(file) if kind == "pipe" else bind(file)
    found = verify(topk)
    assert key in {problem.file for problem in found.problems}
    if kind == "sparse":
        assert any(f"found {200 << 30:,}" in problem.message for problem in found.problems)


def bind(file: Path) -> None:
    here = Path.cwd()
    os.chdir(file.parent)  # a socket's path is short
    with socket.socket(socket.AF_UNIX) as opened:
        opened.bind(file.name)
    os.chdir(here)


def test_metadata_that_are_much_longer_than_what_they_say_are_not_parsed(topk):
    for key, filler in (("commits/zarr.json", b"[" + b"[0]," * 10_000_000 + b"0]"), ("status/zarr.json", b" " * 60_000_000)):
        (topk / key).write_bytes(filler)
    assert {problem.file: problem.message.split(" bytes")[0] for problem in verify(topk).problems} == {
        key: f"no JSON: expected at most {longest_metadata(topk):,}" for key in ("commits/zarr.json", "status/zarr.json")
    }


def longest_metadata(store: Path) -> int:
    return 16 * len(json.dumps(json.loads((store / "zarr.json").read_text())["attributes"])) + 65536


def test_a_pipe_in_the_place_of_the_lock_is_named(topk):
    os.mkfifo(topk / ".lock")
    assert only_problem(topk).message == "a pipe, no file of a label store"


def test_folders_of_others_are_not_searched(topk):
    deep = topk / "mine"
    for _ in range(200):
        deep /= "deeper"
    deep.mkdir(parents=True)
    assert only_problem(topk).file == "mine/deeper/"


def test_rows_that_are_in_the_attributes_alone_are_refused(topk):
    edit_attributes(topk, lambda own: own.update(num_rows=1 << 30))
    for name in (
        "scores",
        "classes",
        "status",
        "ids",
        "targets",
        "commits",
        "errors",
        "image_crc32",
        "image_size",
        "score_range",
    ):
        meta = json.loads((topk / name / "zarr.json").read_text())
        meta["shape"][0] = 1 << (28 if name == "commits" else 30)
        (topk / name / "zarr.json").write_text(json.dumps(meta))
    with pytest.raises(FormatError, match="files of ids, one a shard, found 7: too few"):
        verify(topk)


def test_a_shard_that_no_machine_holds_is_refused(topk, monkeypatch):
    monkeypatch.setattr(os, "sysconf", lambda _: 10)
    with pytest.raises(StoreTooLargeError, match="half of this machine's memory"):
        verify(topk)


HOLD = """
import sys, time
from labelstore.pipelines.lock import store_lock
with store_lock(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


def test_what_a_run_is_writing_at_the_moment_is_not_left_over(topk):
    for key in (f"classes/c.1.0.0.0.{HALF}", "ids/c.6.0"):
        (topk / key).touch()
    command = [sys.executable, "-c", HOLD, str(topk)]
    with subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        assert verify(topk).whole
        process.kill()
    assert len(verify(topk).left_over) == 2
    with store_lock(str(topk)):
        assert len(verify(topk, alone=True).left_over) == 2


def test_a_shard_that_is_being_written_again_is_not_damaged(topk, monkeypatch):
    """Seen between its new files and its new commit, the old one."""
    looks = []

    def look(files, info, shard, ids):
        looks.append(shard)
        if looks == [0, 1]:
            old = (topk / "commits" / "c.1.0.0").read_bytes()
            rewrite(topk, 1, lambda arrays: arrays["image_crc32"].fill(7))
            new = (topk / "commits" / "c.1.0.0").read_bytes()
            (topk / "commits" / "c.1.0.0").write_bytes(old)
            found = check_shard(files, info, shard, ids)
            (topk / "commits" / "c.1.0.0").write_bytes(new)
            assert found.problems
            return found
        return check_shard(files, info, shard, ids)

    monkeypatch.setattr(verifying, "check_shard", look)
    found = verify(topk)
    assert found.whole
    assert looks == [0, 1, 2, 3, 4, 5, 1]


# What says nothing of the store


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
@pytest.mark.parametrize("key", ["status/c.1", "status"])
def test_a_file_that_may_not_be_read_is_no_damage(topk, key):
    (topk / key).chmod(0)
    with pytest.raises(RunError, match="Permission denied.*nothing was changed"):
        verify(topk)
    (topk / key).chmod(0o700)


def test_a_disk_that_cannot_read_a_file_is_no_damage(topk, monkeypatch):
    plain = os.fstat

    def failing(descriptor):
        if Path(f"/proc/self/fd/{descriptor}").readlink().name == "c.1":
            raise OSError(5, "Input/output error")
        return plain(descriptor)

    monkeypatch.setattr(os, "fstat", failing)
    found = verify(topk)
    assert (found.problems, found.damaged, found.lost, found.whole) == ([], [], {}, False)
    assert {(problem.file, problem.shard) for problem in found.unreadable} == {
        ("status/c.1", 1),
        ("image_crc32/c.1", 1),
        ("targets/c.1", 1),
    }
    assert "c.1: cannot be read: Input/output error. That says nothing of what is there" in found.unreadable[0].message


def test_a_server_that_fails_is_no_damage(topk, tmp_path, monkeypatch):
    url = behind_a_url(topk, tmp_path)
    system = type(fsspec.filesystem("memory"))
    cat = system.cat_file

    def failing(self, path, *more, **how):
        if path.endswith("status/c.1"):
            raise TimeoutError("no answer")
        return cat(self, path, *more, **how)

    monkeypatch.setattr(system, "cat_file", failing)
    monkeypatch.setattr(patience, "_pauses", lambda seconds: iter(()))  # it would be waited for, two minutes
    with pytest.raises(RunError, match=r"status/c\.1: cannot be read: no answer"):
        verify(url)


def test_a_process_that_dies_is_told(topk, monkeypatch):
    monkeypatch.setattr(verifying, "_ROWS_A_TASK", 4)
    monkeypatch.setattr(verifying, "_check_some", die)
    with pytest.raises(RunError, match="out of memory, perhaps; try --workers 1"):
        verify_store(str(topk), 2, Observer())
