"""Plain arrays into a store, and out of one."""

from __future__ import annotations

import json
import pickle
import zipfile
from dataclasses import replace

import numpy as np
import pytest
import zarr
from folders import store_contents
from pt_files import CLASSES, HEIGHT, WIDTH, maps
from runs import SERIAL, Heard

from labelstore import LabelMapReader
from labelstore.errors import ImagesError, MapsError, OptionError
from labelstore.pipelines.choice import EncodingChoice
from labelstore.pipelines.exchange.array_file import open_arrays
from labelstore.pipelines.exchange.array_import import ArrayImport, import_arrays
from labelstore.pipelines.exchange.export_arrays import export_arrays
from labelstore.pipelines.exchange.selection import Selection
from labelstore.pipelines.exchange.told import Said
from labelstore.pipelines.observer import Observer
from labelstore.pipelines.verifying import verify_store

IDS = [f"{'xy'[number % 2]}/{number}.jpg" for number in range(10)]


@pytest.fixture
def ids(tmp_path):
    (tmp_path / "ids.txt").write_text("\n".join(IDS) + "\n")
    return str(tmp_path / "ids.txt")


def run(path, store, observer=None, resources=SERIAL, **choices):
    choices.setdefault("shard_size", 4)
    said = Said(num_classes=choices.pop("num_classes", None))
    return import_arrays(ArrayImport(str(path), said, **choices), str(store), resources, observer or Observer())


def listed():
    found = maps(len(IDS)).numpy()
    return {"classes": found[:, 1].astype(np.int64), "scores": found[:, 0]}


def dense(seed=0):
    return {"logits": np.random.default_rng(seed).normal(0, 3, (len(IDS), CLASSES, HEIGHT, WIDTH)).astype(np.float32)}


def save(path, arrays, packed=False):
    if path.suffix == ".npz":
        (np.savez_compressed if packed else np.savez)(path, **arrays)
    else:
        group = zarr.create_group(str(path))
        for name, values in arrays.items():
            group.create_array(name, data=values, chunks=(3, *values.shape[1:]))
    return path


@pytest.mark.parametrize(("name", "packed"), [("maps.npz", False), ("maps.npz", True), ("maps.zarr", False)])
def test_the_best_classes_in_any_order(name, packed, ids, tmp_path):
    arrays, order = listed(), [2, 0, 1]
    mixed = {key: values[:, order] for key, values in arrays.items()}
    run(save(tmp_path / name, {**mixed, "targets": np.arange(10)}, packed), tmp_path / "s.zarr", ids=ids, num_classes=CLASSES)
    reader = LabelMapReader(tmp_path / "s.zarr")
    assert list(reader.ids) == IDS
    np.testing.assert_array_equal(reader.read(IDS).classes, arrays["classes"])
    assert (reader.info.baseline, reader.info.imported.kind) == ("zero", "arrays")
    assert reader.targets.tolist() == list(range(10))
    assert verify_store(str(tmp_path / "s.zarr"), 1, Observer()).whole


@pytest.mark.parametrize("name", ["maps.npz", "maps.zarr"])
@pytest.mark.parametrize("encoding", ["topk", "spectral"])
def test_dense_logits_are_kept_as_annotate_keeps_them(name, encoding, ids, tmp_path):
    arrays = dense()
    choice = EncodingChoice(encoding)
    run(save(tmp_path / name, arrays), tmp_path / "s.zarr", ids=ids, encoding=choice, top_k=4)
    reader = LabelMapReader(tmp_path / "s.zarr")
    assert (reader.info.encoding, reader.top_k, reader.num_classes) == (encoding, 4, CLASSES)
    assert reader.info.baseline == {"topk": "absent_mean", "spectral": "absent_mass"}[encoding]
    if encoding == "topk":
        np.testing.assert_array_equal(reader.read(IDS).classes, np.argsort(-arrays["logits"], axis=1, kind="stable")[:, :4])
    assert verify_store(str(tmp_path / "s.zarr"), 1, Observer()).whole


def test_arrays_in_other_layouts(ids, tmp_path):
    """In Fortran's order, in half precision, big-endian."""
    arrays = dense()
    for number, logits in enumerate(
        (np.asfortranarray(arrays["logits"]), arrays["logits"].astype(">f4"), arrays["logits"].astype(np.float16))
    ):
        run(save(tmp_path / f"{number}.npz", {"logits": logits}), tmp_path / f"{number}.zarr", ids=ids, top_k=3)
    run(save(tmp_path / "plain.npz", arrays), tmp_path / "s.zarr", ids=ids, top_k=3)
    plain = LabelMapReader(tmp_path / "s.zarr").read(IDS)
    for number in (0, 1):
        np.testing.assert_array_equal(LabelMapReader(tmp_path / f"{number}.zarr").read(IDS).scores, plain.scores)
    np.testing.assert_allclose(LabelMapReader(tmp_path / "2.zarr").read(IDS).scores, plain.scores, atol=0.1)


@pytest.mark.parametrize("name", ["out.npz", "out.zarr"])
def test_an_import_of_an_export_equals_the_store(name, store, tmp_path):
    before = LabelMapReader(store)
    export_arrays(str(store), str(tmp_path / name), Selection(), Observer())
    run(tmp_path / name, tmp_path / "back.zarr", shard_size=before.info.shard_size)
    after, ids = LabelMapReader(tmp_path / "back.zarr"), list(before.ids)
    assert list(after.ids) == ids
    if before.info.encoding == "topk":
        np.testing.assert_array_equal(before.read(ids).classes, after.read(ids).classes)
        np.testing.assert_array_equal(before.read(ids).scores, after.read(ids).scores)
    assert after.targets.tolist() == before.targets.tolist()
    assert [after.image_crc32(row) for row in range(len(ids))] == [before.image_crc32(row) for row in range(len(ids))]
    for key in (
        "num_classes",
        "top_k",
        "map_size",
        "class_names",
        "class_ids",
        "target_names",
        "exif",
        "annotator",
        "images_root",
    ):
        assert getattr(after.info, key) == getattr(before.info, key), key
    if before.info.encoding == "topk":
        assert after.info.baseline == before.info.baseline
        arrays_before, arrays_after = (
            {key: data for key, data in store_contents(place).items() if key.split("/")[0] in ("classes", "scores", "ids")}
            for place in (store, tmp_path / "back.zarr")
        )
        assert {key: data for key, data in arrays_before.items() if "/c." in key} == {
            key: data for key, data in arrays_after.items() if "/c." in key
        }


def test_exported_arrays_are_plain(topk, tmp_path):
    reader = LabelMapReader(topk)
    export_arrays(str(topk), str(tmp_path / "some.npz"), Selection(patterns=("blue/*", "red/0.png")), Observer())
    chosen = [image_id for image_id in reader.ids if image_id.startswith("blue") or image_id == "red/0.png"]
    with np.load(tmp_path / "some.npz", allow_pickle=False) as found:
        assert [raw.decode() for raw in found["ids"]] == chosen
        np.testing.assert_array_equal(found["classes"], reader.read(chosen).classes)
        np.testing.assert_array_equal(found["scores"], reader.read(chosen).scores)
        assert json.loads(str(found["labelstore"]))["num_rows"] == len(chosen)
    export_arrays(str(topk), str(tmp_path / "some.zarr"), Selection(patterns=("blue/*", "red/0.png")), Observer())
    group = zarr.open_group(str(tmp_path / "some.zarr"), mode="r")
    np.testing.assert_array_equal(group["scores"][:], reader.read(chosen).scores)
    for name in ("some.npz", "some.zarr"):
        with pytest.raises(OptionError, match="expected nothing"):
            export_arrays(str(topk), str(tmp_path / name), Selection(), Observer())
    with pytest.raises(OptionError, match=r"expected a name that ends in \.npz or \.zarr"):
        export_arrays(str(topk), str(tmp_path / "some.csv"), Selection(), Observer())


def test_bad_rows_are_named_or_fail(ids, tmp_path):
    for number, (arrays, problem) in enumerate(
        (
            ({**listed()}, "score nan at k=1, row 2, column 3: expected finite numbers"),
            (dense(), "logits: expected finite numbers"),
        )
    ):
        next(iter(reversed(arrays.values())))[7, 1, 2, 3] = np.nan
        path = save(tmp_path / f"{number}.npz", arrays)
        more = {"num_classes": CLASSES} if "scores" in arrays else {}
        with pytest.raises(MapsError, match=rf"{number}\.npz: row 7 \('y/7\.jpg'\): {problem}"):
            run(path, tmp_path / f"{number}.zarr", ids=ids, **more)
        summary = run(path, tmp_path / f"{number}.zarr", ids=ids, skip_bad=True, **more)
        assert [image_id for image_id, _ in summary.failures] == ["y/7.jpg"]
        assert summary.failures[0][1].startswith(problem)


def test_arrays_that_are_none_of_maps(ids, tmp_path):
    good = listed()
    cases = (
        ({"maps": good["scores"]}, "expected an array logits .* found maps"),
        ({**good, **dense()}, "expected an array logits"),
        ({"classes": good["classes"]}, "expected an array logits"),
        (
            {**good, "scores": good["scores"][:, :2]},
            r"classes \[10, 3, 4, 6\] and scores \[10, 2, 4, 6\]: expected the same shape",
        ),
        ({"logits": dense()["logits"][0]}, r"logits: expected numbers \[N, ., H, W\], got float32 \[12, 4, 6\]"),
        ({"logits": np.full((10, 2, 2, 2), "x")}, "logits: expected numbers"),
    )
    for number, (arrays, message) in enumerate(cases):
        with pytest.raises(MapsError, match=message):
            run(save(tmp_path / f"{number}.npz", arrays), tmp_path / "s.zarr", ids=ids, num_classes=CLASSES)
    assert not (tmp_path / "s.zarr").exists()


def test_files_that_cannot_be_read(ids, tmp_path):
    objects = tmp_path / "objects.npz"
    np.savez(objects, logits=np.array([{"a": 1}], object))
    with pytest.raises(
        MapsError, match=r"logits\.npy: expected plain numbers or texts, found objects, which are not unpickled"
    ):
        run(objects, tmp_path / "s.zarr", ids=ids)
    (tmp_path / "text.npz").write_text("hello")
    with pytest.raises(MapsError, match=r"text\.npz: expected arrays .* found what cannot be read"):
        run(tmp_path / "text.npz", tmp_path / "s.zarr", ids=ids)
    with pytest.raises(MapsError, match=r"none\.npz: cannot be read: No such file"):
        run(tmp_path / "none.npz", tmp_path / "s.zarr", ids=ids)
    with pytest.raises(MapsError, match=r"none\.zarr: "):
        run(tmp_path / "none.zarr", tmp_path / "s.zarr", ids=ids)
    whole = save(tmp_path / "whole.npz", dense()).read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(MapsError, match=r"cut\.npz: "):
        run(tmp_path / "cut.npz", tmp_path / "s.zarr", ids=ids)


def test_a_header_that_claims_more_than_there_is(ids, tmp_path):
    path = save(tmp_path / "maps.npz", dense())
    with zipfile.ZipFile(path) as archive:
        member = archive.read("logits.npy")
    with zipfile.ZipFile(tmp_path / "claims.npz", "w") as archive:
        archive.writestr("logits.npy", member.replace(b"(10, 12,", b"(99, 12,"))
    with pytest.raises(MapsError, match=r"logits\.npy: expected float32 \[99, 12, 4, 6\], found 11520 bytes"):
        run(tmp_path / "claims.npz", tmp_path / "s.zarr", ids=ids)


def test_a_packed_file_that_is_damaged(ids, tmp_path):
    path = save(tmp_path / "maps.npz", dense(), packed=True)
    good = path.read_bytes()
    path.write_bytes(good[:5000] + b"damage" + good[5006:])
    with pytest.raises(MapsError, match=r"maps\.npz: expected arrays"):
        run(path, tmp_path / "s.zarr", ids=ids)


def test_a_file_that_is_cut_off_while_it_is_read(ids, tmp_path, monkeypatch):
    path = save(tmp_path / "maps.npz", dense())
    opened = open_arrays(str(path))
    monkeypatch.setattr("labelstore.pipelines.exchange.array_import.opened_arrays", lambda _: opened)
    monkeypatch.setattr("labelstore.pipelines.exchange.array_import.open_arrays", lambda _: opened)
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(MapsError, match=r"maps\.npz: cut off: expected 10 rows, found no row"):
        run(path, tmp_path / "s.zarr", ids=ids)


def test_what_a_file_says_of_itself_is_checked(topk, tmp_path):
    export_arrays(str(topk), str(tmp_path / "out.npz"), Selection(), Observer())
    with np.load(tmp_path / "out.npz") as found:
        arrays = dict(found)
    said = json.loads(str(arrays.pop("labelstore")))
    for change in ({"num_classes": -1}, {"format_version": 2}, {"annotator": "me"}):
        np.savez(tmp_path / "bad.npz", **arrays, labelstore=np.array(json.dumps({**said, **change})))
        with pytest.raises(MapsError, match=next(iter(change))):
            run(tmp_path / "bad.npz", tmp_path / "s.zarr")
    np.savez(tmp_path / "bad.npz", **arrays, labelstore=np.array("no json"))
    with pytest.raises(MapsError, match="found what cannot be read"):
        run(tmp_path / "bad.npz", tmp_path / "s.zarr")


def test_ids_must_fit(ids, tmp_path):
    path = save(tmp_path / "maps.npz", dense())
    with pytest.raises(OptionError, match="--ids FILE: needed"):
        run(path, tmp_path / "s.zarr")
    for text, message in (
        ("a.jpg\nb.jpg\n", "expected 10 image ids, one for each map, got 2"),
        ("same.jpg\n" * 10, "image id 'same.jpg': expected each once, got it twice"),
        ("\n".join(["../x.jpg", *IDS[1:]]), r"image id '../x.jpg': expected no '\.\.' in it"),
    ):
        (tmp_path / "bad.txt").write_text(text)
        with pytest.raises(ImagesError, match=message):
            run(path, tmp_path / "s.zarr", ids=str(tmp_path / "bad.txt"))
    (tmp_path / "bad.txt").write_bytes(b"\xff\n" * 10)
    with pytest.raises(OptionError, match="expected UTF-8 text, an id a line"):
        run(path, tmp_path / "s.zarr", ids=str(tmp_path / "bad.txt"))


def test_choices_must_fit(ids, tmp_path):
    path, logits = save(tmp_path / "maps.npz", listed()), save(tmp_path / "logits.npz", dense())
    for choices, message in (
        ({}, "--num-classes: needed"),
        ({"num_classes": CLASSES, "encoding": EncodingChoice("spectral")}, "--encoding, --top-k: go with dense logits"),
        ({"num_classes": CLASSES, "top_k": 2}, "--top-k 2: goes with dense logits; the 3 best classes are kept as they are"),
    ):
        with pytest.raises(OptionError, match=message):
            run(path, tmp_path / "s.zarr", ids=ids, **choices)
    with pytest.raises(OptionError, match="--num-classes 13: the logits are of 12 classes"):
        run(logits, tmp_path / "s.zarr", ids=ids, num_classes=13)
    with pytest.raises(OptionError, match="--top-k 13: expected at most the 12 classes"):
        run(logits, tmp_path / "s.zarr", ids=ids, top_k=13, encoding=EncodingChoice("topk"))


@pytest.mark.slow
def test_workers_make_the_same_store(ids, tmp_path):
    path = save(tmp_path / "maps.npz", listed())
    run(path, tmp_path / "serial.zarr", ids=ids, num_classes=CLASSES)
    heard = Heard()
    run(path, tmp_path / "workers.zarr", heard, replace(SERIAL, workers=1), ids=ids, num_classes=CLASSES)
    assert store_contents(tmp_path / "serial.zarr") == store_contents(tmp_path / "workers.zarr")
    assert heard.counts[-1] == (10, 0)


def test_nothing_is_unpickled(ids, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise AssertionError

    objects = tmp_path / "objects.npz"
    np.savez(objects, logits=np.array([{"a": 1}], object))
    monkeypatch.setattr(pickle, "load", fail)
    with pytest.raises(MapsError):
        run(objects, tmp_path / "s.zarr", ids=ids)
