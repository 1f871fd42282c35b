"""A Zarr group of somebody else: codecs and types that run what data say are refused before anything is decoded."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numcodecs.errors
import numcodecs.pickles
import numpy as np
import pytest
import zarr
from runs import SERIAL

from labelstore.errors import MapsError
from labelstore.pipelines.exchange.array_file import open_arrays
from labelstore.pipelines.exchange.array_import import ArrayImport, import_arrays
from labelstore.pipelines.exchange.zarr_metadata import CODECS_V3, COMPRESSORS_V2, FILTERS_V2, require_plain
from labelstore.pipelines.observer import Observer

PICKLE = {"id": "pickle", "protocol": 5}
RUNS = (
    {"dtype": "|O", "compressor": None, "filters": [{"id": "vlen-utf8"}, PICKLE]},
    {"dtype": "|O", "compressor": PICKLE, "filters": [{"id": "vlen-utf8"}]},
)
"""Metadata of arrays that zarr decodes by unpickling: the first codec says what kind of objects they are."""
OTHERS = (
    {"dtype": "|O", "compressor": None, "filters": [PICKLE]},
    {"dtype": "|S9", "compressor": None, "filters": [PICKLE]},
    {"dtype": "<f4", "compressor": PICKLE},
)


class Bomb:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.touch, (self.file,)


def group_v2(root: Path, name: str, meta: dict[str, Any], chunk: bytes) -> str:
    """A group of Zarr 2 with whole logits and one array more, of one chunk, by hand."""
    group = zarr.create_group(str(root), zarr_format=2)
    group.create_array("logits", data=np.zeros((1, 3, 2, 2), np.float32))
    (root / name).mkdir()
    whole = {"zarr_format": 2, "shape": [1], "chunks": [1], "fill_value": None, "order": "C", "filters": None, **meta}
    (root / name / ".zarray").write_text(json.dumps(whole))
    (root / name / ".zattrs").write_text("{}")
    (root / name / "0").write_bytes(chunk)
    return str(root)


@pytest.fixture
def unguarded(monkeypatch: pytest.MonkeyPatch) -> None:
    """numcodecs as it was before it refused to unpickle."""
    monkeypatch.setattr(numcodecs.pickles, "ALLOW_UNSAFE_PICKLE_DECODE", True)


@pytest.mark.parametrize("name", ["ids", "targets", "image_crc32"])
@pytest.mark.parametrize("meta", [*RUNS, *OTHERS])
def test_a_pickle_is_not_unpickled(tmp_path: Path, unguarded: None, name: str, meta: dict[str, Any]) -> None:
    path = group_v2(tmp_path / "x.zarr", name, meta, pickle.dumps(Bomb(tmp_path / "ran")))
    ids = tmp_path / "ids.txt"
    ids.write_text("a.png\n")
    asked = ArrayImport(path, ids=None if name == "ids" else str(ids))
    with pytest.raises(MapsError, match=rf"x\.zarr/{name}/\.zarray: .*which is not decoded: it may run code"):
        import_arrays(asked, str(tmp_path / "s.zarr"), SERIAL, Observer())
    assert not (tmp_path / "ran").exists()
    assert not (tmp_path / "s.zarr").exists()


@pytest.mark.parametrize("meta", RUNS)
def test_the_pickle_would_have_run(tmp_path: Path, unguarded: None, meta: dict[str, Any]) -> None:
    """What the tests above defend against, done by zarr itself."""
    path = group_v2(tmp_path / "x.zarr", "ids", meta, pickle.dumps(Bomb(tmp_path / "ran")))
    with pytest.raises(TypeError):
        zarr.open_array(f"{path}/ids", mode="r")[:]
    assert (tmp_path / "ran").exists()


def test_numcodecs_refuses_by_itself(tmp_path: Path) -> None:
    """The lowest release that setup.cfg allows does."""
    with pytest.raises(numcodecs.errors.UnsafeDecodeError):
        numcodecs.get_codec(PICKLE).decode(pickle.dumps(Bomb(tmp_path / "ran")))
    assert not (tmp_path / "ran").exists()


V2: dict[str, Any] = {"zarr_format": 2, "dtype": "<f4", "compressor": None, "filters": None}
V3: dict[str, Any] = {"zarr_format": 3, "node_type": "array", "data_type": "float32", "codecs": [{"name": "bytes"}]}


def sharded(codecs: list[Any], depth: int = 1) -> list[Any]:
    inner = codecs if depth == 1 else sharded(codecs, depth - 1)
    configuration = {"chunk_shape": [1], "codecs": inner, "index_codecs": ["bytes", "crc32c"]}
    return [{"name": "sharding_indexed", "configuration": configuration}]


@pytest.mark.parametrize(
    "codec", ["pickle", "msgpack2", "json2", "vlen-utf8", "vlen-bytes", "vlen-array", "categorize", None, 7, []]
)
def test_codecs_that_are_not_listed(codec: object) -> None:
    for changed in (
        {**V2, "compressor": {"id": codec}},
        {**V2, "filters": [{"id": "shuffle"}, {"id": codec}]},
        {**V3, "codecs": [{"name": codec}]},
        {**V3, "codecs": [codec]},
        {**V3, "codecs": [{"name": f"numcodecs.{codec}"}]},
        {**V3, "codecs": sharded([{"name": codec}])},
        {**V3, "codecs": sharded([{"name": codec}], 2)},
    ):
        with pytest.raises(ValueError, match="which is not decoded"):
            require_plain(changed, "here")


@pytest.mark.parametrize("kind", ["|O", "O", "object", ["|O"], [["a", "<f4"]], "<M8[ns]", "|V8", "<c8", "", None, "|S9999999"])
def test_types_of_zarr_2_that_are_not_listed(kind: object) -> None:
    with pytest.raises(ValueError, match="dtype: expected numbers"):
        require_plain({**V2, "dtype": kind}, "here")


@pytest.mark.parametrize("kind", ["string", "variable_length_bytes", "complex64", "r16", {"name": "structured"}, {}, None, 3])
def test_types_of_zarr_3_that_are_not_listed(kind: object) -> None:
    with pytest.raises(ValueError, match="data_type: expected numbers"):
        require_plain({**V3, "data_type": kind}, "here")


@pytest.mark.parametrize(
    "meta",
    [
        *([], None, {}, {"zarr_format": 3}, {**V3, "node_type": "group"}, {**V3, "codecs": None}, {**V3, "codecs": {}}),
        *(
            {**V3, "codecs": ["sharding_indexed"]},
            {**V3, "codecs": sharded(["bytes"], 4)},
            {**V2, "filters": {"id": "shuffle"}},
        ),
        {**V3, "storage_transformers": [{"name": "x"}]},
    ],
)
def test_metadata_that_are_none(meta: object) -> None:
    with pytest.raises((ValueError, TypeError), match="here: "):
        require_plain(meta, "here")


@pytest.mark.parametrize("compressor", COMPRESSORS_V2)
def test_listed_compressors_of_zarr_2_are_read(tmp_path: Path, compressor: str) -> None:
    logits = np.random.default_rng(0).normal(size=(5, 3, 2, 2)).astype(np.float32)
    group = zarr.create_group(str(tmp_path / "x.zarr"), zarr_format=2)
    for number, chosen in enumerate(FILTERS_V2):
        codec = numcodecs.get_codec({"id": chosen, **({"elementsize": 4} if chosen == "shuffle" else {})})
        name = ("logits", "scores", "classes", "targets", "image_crc32")[number]
        group.create_array(name, data=logits, filters=[codec], compressors=numcodecs.get_codec({"id": compressor}))
    columns, said = open_arrays(str(tmp_path / "x.zarr"))
    assert said == {}
    for column in columns.values():
        np.testing.assert_array_equal(column[1:4], logits[1:4])


def test_listed_codecs_of_zarr_3_are_read(tmp_path: Path) -> None:
    logits = np.random.default_rng(0).normal(size=(4, 3, 2, 2)).astype(np.float32)
    group = zarr.create_group(str(tmp_path / "x.zarr"))
    compressors = [zarr.codecs.BloscCodec(), zarr.codecs.GzipCodec(), zarr.codecs.ZstdCodec(), zarr.codecs.Crc32cCodec()]
    turned = zarr.codecs.TransposeCodec(order=(0, 2, 3, 1))
    whole = (4, 3, 2, 2)
    array = group.create_array(
        "logits", shape=whole, chunks=(2, 3, 2, 2), shards=whole, dtype="float32", filters=[turned], compressors=compressors
    )
    array[:] = logits
    shards = json.loads((tmp_path / "x.zarr/logits/zarr.json").read_text())["codecs"][0]
    names = {codec["name"] for codec in shards["configuration"]["codecs"]}
    assert {*names, "sharding_indexed"} == set(CODECS_V3)
    columns, _ = open_arrays(str(tmp_path / "x.zarr"))
    np.testing.assert_array_equal(columns["logits"][1:3], logits[1:3])


def test_consolidated_metadata_are_not_believed(tmp_path: Path) -> None:
    """A group may hold its arrays' metadata once more; only those that were looked at are used."""
    root = tmp_path / "x.zarr"
    group = zarr.create_group(str(root), zarr_format=2)
    group.create_array("logits", data=np.ones((1, 3, 2, 2), np.float32))
    zarr.consolidate_metadata(str(root), zarr_format=2)
    said = json.loads((root / ".zmetadata").read_text())
    said["metadata"]["logits/.zarray"]["filters"] = [{"id": "pickle", "protocol": 5}]
    (root / ".zmetadata").write_text(json.dumps(said))
    columns, _ = open_arrays(str(root))
    assert (columns["logits"][0:1] == 1).all()


def test_arrays_that_an_import_does_not_use_are_not_opened(tmp_path: Path) -> None:
    columns, _ = open_arrays(group_v2(tmp_path / "x.zarr", "notes", RUNS[0], b""))
    assert set(columns) == {"logits"}
