"""What a store says of itself is checked once, on opening."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from folders import edit_attributes
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from labelstore import FormatError, LabelMapReader
from labelstore.errors import UnfinishedStoreError
from labelstore.schema import StoreInfo

GOLDEN = Path(__file__).parent.parent / "golden" / "v1-topk.zarr"


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return Path(shutil.copytree(GOLDEN, tmp_path / "copy.zarr"))


def edit(file: Path, change) -> None:
    meta = json.loads(file.read_text())
    change(meta)
    file.write_text(json.dumps(meta))


def attributes() -> dict:
    return json.loads((GOLDEN / "zarr.json").read_text())["attributes"]["labelstore"]


def test_attributes_come_back():
    info = StoreInfo.from_attributes(attributes(), "here")
    assert StoreInfo.from_attributes(json.loads(json.dumps(info.to_attributes())), "here") == info


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("format_version", 2, "expected 1, which this version reads, found 2; a newer labelstore"),
        ("format_version", "1", "expected 1"),
        ("format_version", None, "expected 1"),
        ("num_rows", -1, "whole number in 0"),
        ("num_rows", 9.0, "whole number"),
        ("num_rows", True, "whole number"),
        ("num_classes", 65536, r"1\.\.65535"),
        ("top_k", "5", "whole number"),
        ("map_size", [7], r"\[height, width\]"),
        ("map_size", [7, 0], r"1\.\.4096"),
        ("map_size", 7, "height"),
        ("shard_size", 0, "whole number"),
        ("encoding", "other", "expected one of topk, spectral, found 'other'"),
        ("encoding", 3, "a text"),
        ("baseline", "one", "'absent_mean' or 'absent_mass' or 'zero'"),
        ("exif", None, "'ignore' or 'apply'"),
        ("class_names", ["a"], "10 entries"),
        ("class_names", "abcdefghij", "list of texts"),
        ("class_ids", [1] * 10, "list of texts"),
        ("annotator", None, "an object"),
        ("annotator", {"name": 3}, r"annotator\.name.*a text"),
        ("versions", [], "an object"),
        ("created", 3, "a text"),
        ("extents", 3, "a list"),
        ("extents", [3], "an object"),
        ("extents", [{"start": 0, "stop": 8}], "the last to end with row 9"),
        ("extents", [{"start": 0, "stop": 5}, {"start": 5, "stop": 9}], "one from row 8 on"),
        ("extents", [{"start": 0, "stop": 5}, {"start": 8, "stop": 8}], "one from row 8 on, not empty"),
        ("ids_array", "../ids", "'ids' or 'ids_' and a number"),
    ],
)
def test_wrong_attributes_are_refused(copy, key, value, words):
    edit_attributes(copy, lambda attributes: attributes.update({key: value}))
    with pytest.raises(FormatError, match=words) as caught:
        LabelMapReader(copy)
    assert str(copy) in str(caught.value)


def test_unknown_keys_and_arrays_are_ignored(copy):
    edit_attributes(copy, lambda attributes: attributes.update({"later": {"x": 1}}))
    shutil.copytree(copy / "status", copy / "later")
    assert len(LabelMapReader(copy)) == 9


@pytest.mark.parametrize(
    ("name", "key", "value", "words"),
    [
        ("classes", "shape", [9, 3, 4, 7], "classes: shape: expected"),
        ("classes", "shape", [8, 3, 4, 6], "classes: shape: expected"),
        ("classes", "shape", [2.0**60, 3, 4, 6], "classes: shape: expected"),
        ("scores", "data_type", "uint16", "scores: data_type: expected uint8, found uint16"),
        ("status", "chunk_grid", {"name": "regular", "configuration": {"chunk_shape": [9]}}, "chunk shape"),
        ("status", "chunk_grid", None, "chunk shape"),
        ("ids", "zarr_format", 2, "Zarr v3 array"),
        ("score_range", "fill_value", 1.0, "fill_value"),
        ("commits", "node_type", "group", "Zarr v3 array"),
    ],
)
def test_wrong_arrays_are_refused(copy, name, key, value, words):
    edit(copy / name / "zarr.json", lambda meta: meta.update({key: value}))
    with pytest.raises(FormatError, match=words):
        LabelMapReader(copy)


def test_missing_arrays_broken_json_and_other_groups(copy):
    shutil.rmtree(copy / "errors")
    with pytest.raises(FormatError, match="expected an array 'errors', found none"):
        LabelMapReader(copy)
    (copy / "zarr.json").write_text("{")
    with pytest.raises(FormatError, match="expected JSON"):
        LabelMapReader(copy)
    (copy / "zarr.json").write_text('{"zarr_format": 3, "node_type": "group", "attributes": {}}')
    with pytest.raises(FormatError, match="expected a label store"):
        LabelMapReader(copy)
    (copy / "zarr.json").write_text('{"zarr_format": 3, "node_type": "group", "attributes": {"labelstore_unfinished": true}}')
    with pytest.raises(UnfinishedStoreError, match="cut off"):
        LabelMapReader(copy)
    (copy / "zarr.json").write_text("[]")
    with pytest.raises(FormatError, match="expected a label store"):
        LabelMapReader(copy)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(sorted(attributes())), json_values)
def test_any_value_is_taken_or_refused_in_words(key, value):
    try:
        info = StoreInfo.from_attributes({**attributes(), key: value}, "here")
    except FormatError as error:
        assert "here" in str(error)
    else:
        StoreInfo.from_attributes(info.to_attributes(), "here")
