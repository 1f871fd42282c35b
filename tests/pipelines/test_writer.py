"""The public writer: stores made of maps from anywhere, by one process or several."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from labelstore import LabelMapReader
from labelstore.errors import FormatError, ImagesError, OptionError, StoreBusyError
from labelstore.pipelines.encoders.listed import encode_listed, find_problems, in_order
from labelstore.pipelines.lock import is_locked, store_lock
from labelstore.pipelines.new_store import MapsRecord, info_of
from labelstore.pipelines.observer import Observer
from labelstore.pipelines.verifying import verify_store
from labelstore.pipelines.writer import LabelMapWriter

IDS = [f"{'ab'[number % 2]}/{number}.jpg" for number in range(10)]
CLASSES, TOP_K, SIZE = 20, 3, (2, 4)


def listed(count, seed=0, top_k=TOP_K, size=SIZE, classes=CLASSES):
    rng = np.random.default_rng(seed)
    chosen = np.argsort(rng.random((count, classes, *size)), axis=1)[:, :top_k].astype(np.uint16)
    return chosen, rng.normal(0, 4, chosen.shape).astype(np.float32)


def create(store, **more):
    return LabelMapWriter.create(store, IDS, num_classes=CLASSES, map_size=SIZE, top_k=TOP_K, shard_size=4, **more)


def fill(writer, shards=None):
    classes, scores = listed(len(IDS))
    for shard in writer.pending() if shards is None else shards:
        at = writer.info.shard_rows(shard)
        with writer.shard(shard) as rows:
            rows.put_maps(0, classes[at.start : at.stop], scores[at.start : at.stop])


def test_what_is_put_is_read_in_order_and_within_half_a_step(tmp_path):
    with create(tmp_path / "s.zarr", targets=range(10)) as writer:
        fill(writer)
        assert writer.pending() == []
    reader, (classes, scores) = LabelMapReader(tmp_path / "s.zarr"), listed(len(IDS))
    assert list(reader.ids) == IDS
    assert reader.targets.tolist() == list(range(10))
    ordered, values = in_order(classes, scores)
    found = reader.read(IDS)
    np.testing.assert_array_equal(found.classes, ordered)
    step = (scores.max(axis=(1, 2, 3)) - scores.min(axis=(1, 2, 3))) / 255
    assert (abs(found.scores - values).max(axis=(1, 2, 3)) <= step / 2 + 1e-5).all()
    assert verify_store(str(tmp_path / "s.zarr"), 1, Observer()).whole
    assert reader.info.imported.kind == "LabelMapWriter"
    assert (reader.info.baseline, reader.annotator.name) == ("zero", "not known")


@pytest.mark.parametrize("encoding", ["topk", "spectral"])
def test_logits_are_encoded_as_annotate_does(tmp_path, encoding):
    logits = np.random.default_rng(0).normal(0, 3, (len(IDS), CLASSES, *SIZE)).astype(np.float32)
    with create(tmp_path / "s.zarr", encoding=encoding) as writer:
        for shard in writer.pending():
            at = writer.info.shard_rows(shard)
            with writer.shard(shard) as rows:
                rows.put_logits(0, logits[at.start : at.stop])
    found = LabelMapReader(tmp_path / "s.zarr").read(IDS)
    np.testing.assert_array_equal(found.classes[:, 0], logits.argmax(axis=1)) if encoding == "topk" else None
    assert verify_store(str(tmp_path / "s.zarr"), 1, Observer()).whole


CODE = """
import sys
sys.path[:0] = [{folder!r}]
from test_writer import LabelMapWriter, fill
with LabelMapWriter({store!r}) as writer:
    print("open", flush=True)
    sys.stdin.readline()
    fill(writer, [int(sys.argv[1])])
"""


def test_processes_write_different_shards_at_the_same_time(tmp_path):
    store = str(tmp_path / "s.zarr")
    create(store).close()
    code = CODE.format(folder=str(Path(__file__).parent), store=store)
    started = [
        subprocess.Popen([sys.executable, "-c", code, str(shard)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for shard in range(2)
    ]
    assert [process.stdout.readline() for process in started] == ["open\n"] * 2
    assert is_locked(store)
    with pytest.raises(StoreBusyError, match="is writing to this store"), store_lock(store):
        pass
    for process in started:
        process.communicate("go\n")
        assert process.returncode == 0
    assert not is_locked(store)
    assert not (tmp_path / "s.zarr" / ".lock").exists()
    with LabelMapWriter(store) as writer:
        assert writer.pending() == [2]


def test_a_store_that_is_at_work_is_busy_for_writers(tmp_path):
    store = str(tmp_path / "s.zarr")
    create(store).close()
    with store_lock(store), pytest.raises(StoreBusyError):
        LabelMapWriter(store)
    with LabelMapWriter(store), LabelMapWriter(store) as second:
        copy = pickle.loads(pickle.dumps(second))
        assert copy.ids(2) == IDS[8:]
        copy.close()


def test_what_cannot_be_is_refused_before_anything_is_written(tmp_path):
    for wrong, error in (
        ({"ids": ["a", "a"]}, ImagesError),
        ({"ids": ["a/../b"]}, ImagesError),
        ({"ids": ["a", "b"], "targets": [1]}, ImagesError),
        ({"ids": ["a"], "targets": [1 << 31]}, ImagesError),
        ({"ids": ["a"], "targets": [-2]}, ImagesError),
        ({"ids": ["a"], "targets": [0.5]}, ImagesError),
        ({"ids": ["a"], "top_k": 30}, OptionError),
        ({"ids": ["a"], "baseline": "absent_mass"}, OptionError),
        ({"ids": ["a"], "class_names": ["x"]}, FormatError),
    ):
        with pytest.raises(error):
            LabelMapWriter.create(tmp_path / "s.zarr", **{"num_classes": CLASSES, "map_size": SIZE, "top_k": 3, **wrong})
        assert not (tmp_path / "s.zarr").exists()
    create(tmp_path / "s.zarr").close()
    with pytest.raises(FormatError, match="expected nothing"):
        create(tmp_path / "s.zarr")
    with LabelMapWriter(tmp_path / "s.zarr") as writer, pytest.raises(ImagesError, match=r"expected a shard in 0\.\.2"):
        writer.shard(3)


INFO = info_of(MapsRecord(CLASSES, SIZE, TOP_K), 4, 1)


def decoded(encoded):
    top, step = encoded["score_range"].T[..., None, None, None]
    levels = np.cumsum(encoded["scores"], axis=1).astype(np.float32)
    return encoded["classes"], (top - step * levels).astype(np.float32)


scores_of_any_size = arrays(
    np.float32,
    (2, TOP_K, *SIZE),
    elements=st.one_of(
        st.floats(-30, 30, width=32),
        st.sampled_from([0.0, -0.0, 1.0]),
        st.floats(-(2.0**122), 2.0**122, width=32),
    ),
)


@given(scores_of_any_size, st.integers(0, 2**32 - 1))
@settings(max_examples=300, deadline=None)
def test_once_through_the_store_twice_is_the_same(scores, seed):
    """Classes to the bit, ties included; scores within half a step; and what has been decoded stays what it is."""
    classes, _ = listed(2, seed)
    assert find_problems(classes, scores, CLASSES) == ["", ""]
    first = encode_listed(classes, scores, INFO)
    found, values = decoded(first)
    ordered, given_scores = in_order(classes, scores + np.float32(0))
    np.testing.assert_array_equal(found, ordered)
    span = scores.max(axis=(1, 2, 3)).astype(np.float64) - scores.min(axis=(1, 2, 3))
    bound = span / 510 + 2 * np.spacing(abs(scores).max(axis=(1, 2, 3))) + 255 * np.finfo(np.float32).tiny
    assert (abs(values.astype(np.float64) - given_scores).max(axis=(1, 2, 3)) <= bound).all()
    again, same = decoded(encode_listed(found, values, INFO))
    np.testing.assert_array_equal(again, found)
    np.testing.assert_array_equal(same, values)


@given(st.permutations(range(TOP_K)), st.integers(0, 99), st.integers(0, 3))
@settings(max_examples=50, deadline=None)
def test_the_order_along_k_means_nothing(order, seed, ties):
    classes, scores = listed(3, seed)
    scores = np.round(scores / (10**ties)) if ties else scores
    expected = encode_listed(classes, scores, INFO)
    given_so = encode_listed(classes[:, order], scores[:, order], INFO)
    for name in ("scores", "score_range"):
        np.testing.assert_array_equal(given_so[name], expected[name])
    dense = [np.zeros((3, CLASSES, *SIZE), np.float32) for _ in range(2)]
    for out, encoded in zip(dense, (expected, given_so), strict=True):
        np.put_along_axis(out, *map(np.asarray, [decoded(encoded)[0].astype(np.int64), decoded(encoded)[1]]), axis=1)
    np.testing.assert_array_equal(*dense)


def test_no_class_comes_last_and_takes_no_part(tmp_path):
    classes, scores = listed(1)
    classes[0, 0, 1, 1], scores[0, 0, 1, 1] = 65535, 99.0
    assert find_problems(classes, scores, CLASSES) == [""]
    found, values = decoded(encode_listed(classes, scores, INFO))
    assert found[0, 2, 1, 1] == 65535
    assert values[0, 2, 1, 1] == pytest.approx(min(scores[0, 1:, 1, 1]), abs=0.1)
    assert values.max() < 99
