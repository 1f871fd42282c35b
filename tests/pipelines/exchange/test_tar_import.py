"""Tar files of maps into a store."""

from __future__ import annotations

import io
import json
import tarfile
from dataclasses import replace

import numpy as np
import pytest
from folders import store_contents
from pt_files import CLASSES, HEIGHT, TOP_K, WIDTH, maps
from runs import SERIAL, Heard

from labelstore import LabelMapReader
from labelstore.errors import ImagesError, MapsError, OptionError
from labelstore.pipelines.exchange.export_tar import export_tar
from labelstore.pipelines.exchange.selection import Selection
from labelstore.pipelines.exchange.tar_import import TarImport, import_tars
from labelstore.pipelines.exchange.told import Said
from labelstore.pipelines.observer import Observer
from labelstore.pipelines.verifying import verify_store

SAID = Said(num_classes=CLASSES)


def run(folder, store, observer=None, resources=SERIAL, said=SAID, **choices):
    asked = TarImport(str(folder), said, **choices)
    return import_tars(asked, str(store), resources, observer or Observer())


def npy(values):
    file = io.BytesIO()
    np.save(file, values)
    return file.getvalue()


def samples(count=6):
    """Members by name, of somebody who writes such files by himself."""
    found = {}
    for number, (scores, classes) in enumerate(maps(count).numpy()):
        key = f"{'ab'[number % 2]}/{number}"
        found[f"{key}.json"] = json.dumps({"id": f"{key}.jpg"}).encode()
        found[f"{key}.classes.npy"] = npy(classes.astype(np.int32))
        found[f"{key}.scores.npy"] = npy(scores)
        found[f"{key}.txt"] = b"more that somebody keeps there"
    return found


def write(folder, members, name="maps-0.tar"):
    folder.mkdir(exist_ok=True)
    with tarfile.open(folder / name, "w") as archive:
        for member, data in members.items():
            entry = tarfile.TarInfo(member)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return folder


@pytest.mark.parametrize("maps_a_tar", [5, 100])
def test_an_import_of_an_export_equals_the_store(store, tmp_path, maps_a_tar):
    before = LabelMapReader(store)
    export_tar(str(store), str(tmp_path / "tars"), maps_a_tar, Selection(), Observer())
    run(tmp_path / "tars", tmp_path / "back.zarr", said=Said(), shard_size=4)
    after, ids = LabelMapReader(tmp_path / "back.zarr"), list(before.ids)
    assert list(after.ids) == ids
    np.testing.assert_array_equal(after.read(ids).classes, before.read(ids).classes)
    if before.info.encoding == "topk":
        for name, values in before.read_packed(ids).items():
            np.testing.assert_array_equal(values, after.read_packed(ids)[name])
        assert after.info.baseline == before.info.baseline
    assert after.targets.tolist() == before.targets.tolist()
    assert after.image_crc32s(ids).tolist() == before.image_crc32s(ids).tolist()
    for key in ("num_classes", "class_names", "class_ids", "target_names", "exif", "annotator", "images_root"):
        assert getattr(after.info, key) == getattr(before.info, key), key
    assert after.info.imported.kind == "webdataset"
    assert verify_store(str(tmp_path / "back.zarr"), 1, Observer()).whole


def test_files_of_other_programs(tmp_path):
    run(write(tmp_path / "tars", samples()), tmp_path / "s.zarr")
    reader = LabelMapReader(tmp_path / "s.zarr")
    assert list(reader.ids) == ["a/0.jpg", "b/1.jpg", "a/2.jpg", "b/3.jpg", "a/4.jpg", "b/5.jpg"]
    assert (reader.top_k, reader.map_size, reader.info.baseline) == (TOP_K, (HEIGHT, WIDTH), "zero")
    np.testing.assert_array_equal(reader.read(list(reader.ids)).classes, maps().numpy()[:, 1])
    with pytest.raises(OptionError, match="--num-classes: needed"):
        run(tmp_path / "tars", tmp_path / "x.zarr", said=Said())


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"a/2.scores.npy": npy(np.full((TOP_K, HEIGHT, WIDTH), np.nan))}, "score nan at k=0, row 0, column 0"),
        ({"a/2.scores.npy": npy(np.zeros((2, 2)))}, r"expected classes and scores \[3, 4, 6\] as the first map has, got"),
        ({"a/2.classes.npy": b"not an array"}, r"expected an array as NumPy writes it \(\.npy\)"),
        (
            {"a/2.classes.npy": npy(np.array([{"a": 1}], object))},
            r"expected an array .*: Object arrays",
        ),
        ({"a/2.classes.npy": npy(np.full((TOP_K, HEIGHT, WIDTH), "x"))}, "expected numbers, got <U1"),
    ],
)
def test_a_bad_map_is_named_or_fails(tmp_path, change, problem):
    folder = write(tmp_path / "tars", {**samples(), **change})
    with pytest.raises(MapsError, match=rf"maps-0\.tar: 'a/2\.jpg': .*{problem}"):
        run(folder, tmp_path / "s.zarr")
    summary = run(folder, tmp_path / "s.zarr", skip_bad=True)
    assert [image_id for image_id, _ in summary.failures] == ["a/2.jpg"]


def test_samples_that_are_none(tmp_path):
    for change, error, message in (
        ({"a/2.json": b"no json"}, MapsError, r"a/2\.json: expected an object with an 'id', got b'no json'"),
        ({"a/2.json": b"[1]"}, MapsError, r"a/2\.json: expected an object with an 'id'"),
        ({"a/2.json": b'{"id": null}'}, MapsError, r"a/2\.json: expected an object with an 'id'"),
        *(
            ({"a/2.json": json.dumps({"id": "a/2.jpg", name: value}).encode()}, MapsError, rf"{name}: expected an integer from")
            for name, value in (
                ("target", 1 << 31),
                ("target", -2),
                ("target", 1.5),
                ("target", True),
                ("target", float("inf")),
                ("image_crc32", -1),
                ("image_crc32", 1 << 32),
            )
        ),
        ({"a/2.json": b'{"id": "../x"}'}, ImagesError, r"image id '\.\./x': expected no"),
        ({"a/2.json": b'{"id": "a/0.jpg"}'}, ImagesError, "expected each once, got it twice"),
    ):
        with pytest.raises(error, match=message):
            run(write(tmp_path / "tars", {**samples(), **change}), tmp_path / "s.zarr")
    fewer = samples()
    del fewer["b/3.scores.npy"]
    with pytest.raises(MapsError, match=r"b/3: expected .*, found no scores\.npy"):
        run(write(tmp_path / "tars", fewer), tmp_path / "s.zarr")
    assert not (tmp_path / "s.zarr").exists()


def test_files_that_are_none(topk, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ImagesError, match="expected tar files in this folder, found none"):
        run(tmp_path / "empty", tmp_path / "s.zarr")
    (tmp_path / "empty" / "bad.tar").write_bytes(b"hello")
    with pytest.raises(ImagesError, match=r"bad\.tar: no whole tar file"):
        run(tmp_path / "empty", tmp_path / "s.zarr")
    export_tar(str(topk), str(tmp_path / "tars"), 10, Selection(), Observer())
    (tmp_path / "tars" / "maps-000001.tar").unlink()
    with pytest.raises(ImagesError, match=r"expected 21 samples as labelstore\.json says, found 11"):
        run(tmp_path / "tars", tmp_path / "s.zarr", said=Said())
    (tmp_path / "tars" / "labelstore.json").write_text("{")
    with pytest.raises(MapsError, match=r"labelstore\.json: expected JSON"):
        run(tmp_path / "tars", tmp_path / "s.zarr", said=Said())
    (tmp_path / "tars" / "labelstore.json").write_text("[]")
    with pytest.raises(MapsError, match=r"labelstore\.json: expected an object, got list"):
        run(tmp_path / "tars", tmp_path / "s.zarr", said=Said())


@pytest.mark.slow
def test_workers_make_the_same_store(tmp_path):
    folder, heard = write(tmp_path / "tars", samples()), Heard()
    run(folder, tmp_path / "serial.zarr", shard_size=4)
    run(folder, tmp_path / "workers.zarr", heard, replace(SERIAL, workers=1), shard_size=4)
    assert store_contents(tmp_path / "serial.zarr") == store_contents(tmp_path / "workers.zarr")
