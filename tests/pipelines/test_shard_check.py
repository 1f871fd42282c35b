"""A shard's values, chunks and files: each thing that no writer makes is found though all checksums fit it."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from damage import reseal, rewrite, rows_of, spec_of

from labelstore import LabelMapReader
from labelstore.encodings import committed_arrays
from labelstore.encodings.spectral import record_of
from labelstore.pipelines.files import encode_file
from labelstore.pipelines.observer import Observer
from labelstore.pipelines.verifying import Problem, Verification, verify_store
from labelstore.schema import NO_CLASS, Status
from labelstore.storage import open_source

GOLDEN = Path(__file__).parent.parent / "golden"


@pytest.fixture
def spectral(tmp_path) -> Path:
    """The golden store, whose maps have logits for the classes that are not named: 2 of 3 shards committed."""
    return Path(shutil.copytree(GOLDEN / "v1-spectral.zarr", tmp_path / "spectral.zarr"))


def verify(store: Path) -> Verification:
    return verify_store(str(store), 1, Observer())


def only_problem(store: Path) -> Problem:
    found = verify(store)
    assert len(found.problems) == 1, found.problems
    return found.problems[0]


# Values


def set_to(name, place, value):
    def change(arrays):
        arrays[name][place] = value

    return change


def fail(text: bytes = b"cannot be decoded", emptied: bool = True):
    def change(arrays):
        arrays["status"][2], arrays["image_size"][2] = Status.FAILED, 0
        arrays["errors"][2, : len(text)] = np.frombuffer(text, np.uint8)
        for name, fill in (("classes", NO_CLASS), ("scores", 0), ("score_range", 0)) if emptied else ():
            arrays[name][2] = fill

    return change


def twice(arrays):
    arrays["classes"][2, 1, 3, 4] = arrays["classes"][2, 0, 3, 4]


def with_reason(arrays):
    arrays["errors"][2, :4] = np.frombuffer(b"oops", np.uint8)


def without_score(arrays):
    fail()(arrays)
    arrays["scores"][2, 0, 0, 0] = 1


def without_range(arrays):
    fail()(arrays)
    arrays["score_range"][2, 0] = 1


TOPK_FAULTS = {
    "a class that there is not": ("classes", set_to("classes", (2, 1, 3, 4), 8), "expected 0..7, found 8"),
    "no best class": ("classes", set_to("classes", (2, 0, 3, 4), NO_CLASS), "a location without a best class"),
    "a class twice": ("classes", twice, "expected each at most once a location"),
    "a class behind none": ("classes", set_to("classes", (2, 1, 3, 4), NO_CLASS), "a class behind 'no class'"),
    "gaps that add up too far": (
        "classes",
        set_to("scores", (2, slice(None), 3, 4), 200),
        "rank gaps that add up to at most 255",
    ),
    "a maximum of nan": ("classes", set_to("score_range", (2, 0), np.nan), "finite down to the last level"),
    "an infinite maximum": ("classes", set_to("score_range", (2, 0), np.inf), "finite down to the last level"),
    "a step of nan": ("classes", set_to("score_range", (2, 1), np.nan), "finite down to the last level"),
    "a step too large": ("classes", set_to("score_range", (2, 1), 3e38), "finite down to the last level"),
    "a step below zero": ("classes", set_to("score_range", (2, 1), -1), "expected (max, step >= 0)"),
    "classes of a failed row": ("classes", fail(emptied=False), "a map of a failed row"),
    "scores of a failed row": ("scores", without_score, "a map of a failed row"),
    "a range of a failed row": ("score_range", without_range, "a map of a failed row"),
    "no reason to fail": ("errors", fail(b""), "a failed row without a reason"),
    "a reason of a row that is done": ("errors", with_reason, "a reason to fail, of a row that is done"),
    "a reason that is no text": ("errors", fail(b"\xff\xfe"), "expected a text in UTF-8"),
    "a reason with a NUL": ("errors", fail(b"a\0b"), "expected a text in UTF-8"),
    "a pending row": ("status", set_to("status", 2, Status.PENDING), "expected done (1) or failed (2), found 0"),
    "a hole": ("status", set_to("status", 2, Status.HOLE), "expected done (1) or failed (2), found 3"),
    "an unknown status": ("status", set_to("status", 2, 9), "expected done (1) or failed (2), found 9"),
}


@pytest.mark.parametrize("fault", TOPK_FAULTS)
def test_a_value_that_no_topk_map_has(topk, fault):
    array, change, words = TOPK_FAULTS[fault]
    rewrite(topk, 1, change)
    found = verify(topk)
    places = {(problem.file.split("/")[0], problem.shard, problem.row, problem.image_id) for problem in found.problems}
    expected = (1, 6, LabelMapReader(topk).ids[6])
    if (
        "reason" not in fault
        and "status" not in fault
        and "failed" not in fault
        and "pending" not in fault
        and fault != "a hole"
    ):
        assert places == {(array, *expected)}
    assert (array, *expected) in places
    assert any(words in problem.message for problem in found.problems if problem.file.startswith(array)), found.problems
    assert (found.damaged, found.rows["damaged"], found.rows["done"]) == ([1], 4, 17)


def test_a_failed_row_as_a_writer_makes_it_is_right(topk):
    rewrite(topk, 1, fail())
    found = verify(topk)
    assert found.whole
    assert (found.rows["done"], found.rows["failed"]) == (20, 1)


def field(name, place, value):
    def change(arrays, info):
        records = arrays["spectra"].view(record_of(info))[:, 0]
        records[name][(2, *place)] = value

    return change


SPECTRAL_FAULTS = {
    "a class that there is not": (field("classes", (1,), 10), "expected 0..9, found 10"),
    "a class twice": (field("classes", (slice(None),), 3), "expected each at most once, found 3 twice"),
    "a scale that is nan": (field("scales", (0,), np.nan), "scales: expected"),
    "an infinite scale": (field("scales", (2,), np.inf), "scales: expected"),
    "a mean step below zero": (field("scales", (1,), -1), "mean step >= 0"),
    "a weight step below zero": (field("scales", (2,), -1), "weight step >= 0"),
    "a rest that is nan": (field("rest", (3,), np.nan), "rest: expected finite logits"),
}


@pytest.mark.parametrize("fault", SPECTRAL_FAULTS)
def test_a_value_that_no_spectral_map_has(spectral, fault):
    change, words = SPECTRAL_FAULTS[fault]
    info = LabelMapReader(spectral).info
    rewrite(spectral, 1, lambda arrays: change(arrays, info))
    problem = only_problem(spectral)
    assert (problem.file, problem.shard, problem.row, problem.image_id) == ("spectra/c.1.0", 1, 6, "g.jpg")
    assert words in problem.message


def test_a_spectral_record_that_does_not_end_in_zeros(spectral_store, tmp_path):
    store = Path(shutil.copytree(spectral_store, tmp_path / "labels.zarr"))
    info = LabelMapReader(store).info
    rewrite(store, 1, lambda arrays: field("padding", (-1,), 1)(arrays, info))
    problem = only_problem(store)
    assert (problem.file, problem.row, problem.image_id) == ("spectra/c.1.0", 6, "blue/6.png")
    assert problem.message == "expected zeros behind the record's fields, found others"


def test_a_spectral_map_of_a_failed_row(spectral):
    def change(arrays):
        arrays["spectra"][3] = arrays["spectra"][2]  # row 3 has failed

    rewrite(spectral, 0, change)
    problem = only_problem(spectral)
    assert (problem.file, problem.row, problem.message) == ("spectra/c.0.0", 3, "a map of a failed row")


def test_all_bad_rows_of_a_shard_are_named(topk):
    rewrite(topk, 1, set_to("classes", (slice(None), 1, 3, 4), 99))
    assert [problem.row for problem in verify(topk).problems] == [4, 5, 6, 7]


# Chunks and padding, under commits that fit


def full(store: Path, name: str, rows: int) -> np.ndarray:
    """The last shard's only row of an array, so many times."""
    return np.repeat(rows_of(store, 5)[name], rows, axis=0)


def test_a_chunk_for_a_row_that_the_shard_does_not_have(topk):
    reseal(topk, 5, {"scores": encode_file(spec_of(topk, "scores"), full(topk, "scores", 2), 4)})
    problem = only_problem(topk)
    assert (problem.file, problem.shard, problem.row) == ("scores/c.5.0.0.0", 5, None)
    assert problem.message == "a chunk for row 21, which the shard does not have"


def test_a_row_without_its_chunk(topk):
    reseal(topk, 1, {"scores": encode_file(spec_of(topk, "scores"), rows_of(topk, 1)["scores"][:3], 4)})
    problem = only_problem(topk)
    assert (problem.file, problem.row, problem.message) == ("scores/c.1.0.0.0", 7, "no chunk for the row")


def test_rows_behind_the_last_that_are_no_holes(topk):
    reseal(topk, 5, {"status": encode_file(spec_of(topk, "status"), np.array([1, 1, 3, 0]), 4)})
    found = verify(topk)
    assert [(problem.file, problem.shard, problem.row) for problem in found.problems] == [("status/c.5", 5, None)] * 2
    assert found.problems[0].message == "row 21: expected a hole (3) behind the last row, found 1"
    assert found.problems[1].message == "row 23: expected a hole (3) behind the last row, found 0"


def test_a_damaged_chunk_under_a_commit_that_fits(store):
    spec = committed_arrays(open_source(store)[1])[0]
    data = bytearray((store / spec.name / spec.file_name(1)).read_bytes())
    data[4 + 10] ^= 1
    reseal(store, 1, {spec.name: bytes(data)})
    problem = only_problem(store)
    assert (problem.file, problem.shard, problem.row) == (f"{spec.name}/{spec.file_name(1)}", 1, 4)
    assert problem.message.startswith("the chunk at offset 4 (")


def test_a_damaged_index_under_a_commit_that_fits(store):
    spec = committed_arrays(open_source(store)[1])[0]
    data = bytearray((store / spec.name / spec.file_name(1)).read_bytes())
    data[-20] ^= 1
    reseal(store, 1, {spec.name: bytes(data)})
    problem = only_problem(store)
    assert (problem.row, problem.message) == (None, "the shard's index does not match its checksum")


def test_a_file_of_no_bytes_under_a_commit_that_fits(store):
    reseal(store, 1, {"errors": b""})
    assert only_problem(store).file == "errors/c.1.0"


@pytest.mark.parametrize("size", [(0, 0), (1, 65535)])
def test_image_sizes_that_there_are(store, size):
    rewrite(store, 1, lambda arrays: arrays["image_size"].__setitem__(2, size))
    assert verify(store).whole


@pytest.mark.parametrize("size", [(0, 40), (60, 0), (65536, 40), (60, 2**32 - 1)])
def test_image_sizes_that_there_are_not(store, size):
    rewrite(store, 1, lambda arrays: arrays["image_size"].__setitem__(2, size))
    problem = only_problem(store)
    assert (problem.file, problem.shard, problem.row) == ("image_size/c.1.0", 1, 6)
    assert problem.message == f"expected a width and a height of 1 to 65535, or 0, 0, found {list(size)}"


def test_an_image_size_of_a_failed_row(topk):
    rewrite(topk, 1, lambda arrays: (fail()(arrays), arrays["image_size"].__setitem__(2, (60, 40))))
    problem = only_problem(topk)
    assert (problem.row, problem.message) == (6, "expected 0, 0 of a row that failed, found [60, 40]")


def test_an_image_size_behind_the_last_row(store):
    reseal(store, 5, {"image_size": encode_file(spec_of(store, "image_size"), np.array([[60, 40]] * 2 + [[0, 0]] * 2), 4)})
    problem = only_problem(store)
    assert (problem.row, problem.message) == (None, "row 21: expected 0, 0 behind the last row, found [60, 40]")
