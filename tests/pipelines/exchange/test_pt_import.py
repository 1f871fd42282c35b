"""Folders of one file a map into a store."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace

import numpy as np
import pt_files
import pytest
import torch
from deadly_work import DEADLY
from folders import store_contents
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pt_files import CLASSES, HEIGHT, IDS, TOP_K, WIDTH, read_folder, write_folder
from runs import SERIAL, Heard
from torchvision.ops import roi_align

from labelstore import FailedRowError, LabelMapReader
from labelstore.errors import ImagesError, MapsError, OptionError, RunError, StoreMismatchError
from labelstore.pipelines.exchange import task
from labelstore.pipelines.exchange.export_pt import export_pt
from labelstore.pipelines.exchange.pt_folder import by_extension, by_images
from labelstore.pipelines.exchange.pt_import import PtImport, import_pt
from labelstore.pipelines.exchange.selection import Selection
from labelstore.pipelines.observer import Observer
from labelstore.pipelines.verifying import verify_store
from labelstore.schema import Status

ASKED = PtImport("", axes="yx", num_classes=CLASSES, shard_size=4)


def run(folder, store, observer=None, resources=SERIAL, **choices):
    asked = replace(ASKED, folder=str(folder), **choices)
    return import_pt(asked, str(store), resources, observer or Observer())


@pytest.fixture
def folder(tmp_path):
    return write_folder(tmp_path / "maps")


def test_what_is_imported_is_what_the_files_hold(folder, tmp_path):
    heard = Heard()
    summary = run(folder, tmp_path / "s.zarr", heard, annotator="their network")
    reader = LabelMapReader(tmp_path / "s.zarr")
    assert (summary.new_rows, summary.counts.failed, heard.plans) == (6, 0, [(6, 0)])
    assert list(reader.ids) == list(IDS)
    assert (reader.top_k, reader.map_size, reader.num_classes) == (TOP_K, (HEIGHT, WIDTH), CLASSES)
    assert (reader.info.encoding, reader.info.baseline, reader.annotator.name) == ("topk", "zero", "their network")
    assert (reader.info.imported.kind, reader.info.imported.axes) == ("relabel", "yx")
    assert (reader.targets.tolist(), reader.info.target_names) == ([0, 0, 1, 1, 1, 1], ("a", "b"))
    maps, found = pt_files.maps().numpy(), reader.read(IDS)
    np.testing.assert_array_equal(found.classes, maps[:, 1])
    step = (maps[:, 0].max(axis=(1, 2, 3)) - maps[:, 0].min(axis=(1, 2, 3))) / 255
    assert (abs(found.scores - maps[:, 0]).max(axis=(1, 2, 3)) <= step / 2 + 1e-5).all()
    assert verify_store(str(tmp_path / "s.zarr"), 1, Observer()).whole


def test_maps_the_other_way_round_are_turned(folder, tmp_path):
    turned = write_folder(tmp_path / "turned", pt_files.maps().transpose(3, 4))
    run(folder, tmp_path / "one.zarr")
    run(turned, tmp_path / "other.zarr", axes="xy")
    one, other = (LabelMapReader(tmp_path / name).read(IDS) for name in ("one.zarr", "other.zarr"))
    np.testing.assert_array_equal(one.classes, other.classes)
    np.testing.assert_array_equal(one.scores, other.scores)
    assert LabelMapReader(tmp_path / "other.zarr").info.imported.axes == "xy"


def reference_label(tensor: torch.Tensor, top: float, left: float, height: float, width: float) -> np.ndarray:
    """What the reference's loader trains on: it hands (top, left, bottom, right) to an operator that takes (x1, y1, x2, y2)."""
    dense = torch.zeros(1, CLASSES, *tensor.shape[2:]).scatter_(1, tensor[1][None].long(), tensor[0][None])
    box = torch.tensor([[0, top, left, top + height, left + width]]) * torch.tensor([1, *[tensor.shape[3]] * 4])
    box[:, 1:] -= 0.5
    return torch.softmax(roi_align(dense, box, output_size=(1, 1)).flatten(), 0).numpy()


def test_imported_as_xy_a_store_gives_what_the_references_own_loader_would_have_trained_on(tmp_path):
    """A class that is likely in the top half alone: the reference sees it in the left half of the image."""
    tensor = torch.zeros(2, 2, 8, 8)
    tensor[1, 1] = 1
    tensor[0, 0, :4] = 5  # class 0 in the map's upper rows
    tensor[0, 1, 4:] = 5
    tensor[:, :, 4:] = tensor[:, :, 4:].flip(1)  # best first
    root = write_folder(tmp_path / "maps", tensor[None], IDS[:1])
    for axes in ("xy", "yx"):
        run(root, tmp_path / f"{axes}.zarr", axes=axes)
    theirs = LabelMapReader(tmp_path / "xy.zarr")
    boxes = {"left": (0, 0, 1, 0.5), "right": (0, 0.5, 1, 0.5), "top": (0, 0, 0.5, 1), "some": (0.1, 0.3, 0.5, 0.65)}
    for top, left, height, width in boxes.values():
        ours = theirs.pool(IDS[:1], [[left, top, left + width, top + height]])[0]
        np.testing.assert_allclose(ours, reference_label(tensor, top, left, height, width), atol=2e-5)
    assert reference_label(tensor, *boxes["left"])[0] > 0.9  # the class of the map's upper rows
    right_way = LabelMapReader(tmp_path / "yx.zarr").pool(IDS[:1], [[0, 0, 0.5, 1]])[0]
    assert abs(right_way[0] - right_way[1]) < 0.01


def test_tokenlabelings_files_are_float16(tmp_path):
    maps = pt_files.maps().half()
    root = write_folder(tmp_path / "maps", maps)
    run(root, tmp_path / "s.zarr", kind="tokenlabeling")
    reader = LabelMapReader(tmp_path / "s.zarr")
    np.testing.assert_array_equal(reader.read(IDS).classes, maps[:, 1].numpy())
    assert reader.info.imported.kind == "tokenlabeling"
    with pytest.raises(OptionError, match=r"--num-classes 2049: .* float16, which is exact up to 2,048 only"):
        run(root, tmp_path / "x.zarr", kind="tokenlabeling", num_classes=2049)
    with pytest.raises(MapsError, match=r"1\.pt: class numbers in float16 are exact up to 2,048 only, too few for 2,049"):
        run(root, tmp_path / "x.zarr", num_classes=2049)


def test_axes_are_never_guessed(folder, tmp_path):
    with pytest.raises(OptionError, match="expected --axes yx, --axes xy or --check IMAGES, one of them"):
        run(folder, tmp_path / "s.zarr", axes=None)
    assert not (tmp_path / "s.zarr").exists()


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (lambda t: t[0].__setitem__((0, 1, 2), float("nan")), "score nan at k=0, row 1, column 2: expected finite numbers"),
        (lambda t: t[0].__setitem__((0, 1, 2), float("inf")), "score inf at k=0, row 1, column 2: expected finite numbers"),
        (lambda t: t[1].__setitem__((0, 1, 2), -1), "class -1.0 at k=0, row 1, column 2: expected 0 to 11"),
        (lambda t: t[1].__setitem__((0, 1, 2), 12), "class 12.0 at k=0, row 1, column 2: expected 0 to 11"),
        (lambda t: t[1].__setitem__((0, 1, 2), 65535), "class 65535.0 at k=0, row 1, column 2: expected 0 to 11"),
        (lambda t: t[1].__setitem__((0, 1, 2), 0.5), "class 0.5 at k=0, row 1, column 2: expected whole numbers"),
        (lambda t: t[1].__setitem__((0, 1, 2), t[1, 1, 1, 2]), "twice at row 1, column 2: expected each once a location"),
    ],
)
def test_a_map_that_is_none_is_named_or_its_row_fails(folder, tmp_path, spoil, problem):
    tensor = pt_files.maps()[2].clone()
    spoil(tensor)
    torch.save(tensor, folder / "b" / "3.pt")
    with pytest.raises(MapsError) as caught:
        run(folder, tmp_path / "s.zarr")
    assert f"{folder}/b/3.pt: " in str(caught.value)
    assert problem in str(caught.value)
    assert "With --skip-bad its row is marked as failed instead" in str(caught.value)
    summary = run(folder, tmp_path / "s.zarr", skip_bad=True)
    assert summary.counts.failed == 1
    reader = LabelMapReader(tmp_path / "s.zarr")
    with pytest.raises(FailedRowError, match="has no label map"):
        reader["b/3.JPEG"]
    assert problem in reader.error("b/3.JPEG")
    good = [image_id for image_id in IDS if image_id != "b/3.JPEG"]
    np.testing.assert_array_equal(reader.read(good).classes, pt_files.maps()[[0, 1, 3, 4, 5], 1])


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (torch.zeros(2, TOP_K + 1, HEIGHT, WIDTH), r"expected \[2, 3, 4, 6\] as the first file has, got \[2, 4, 4, 6\]"),
        (torch.zeros(2, TOP_K, WIDTH, HEIGHT), r"expected \[2, 3, 4, 6\] as the first file has, got \[2, 3, 6, 4\]"),
        (
            torch.zeros(3, TOP_K, HEIGHT, WIDTH),
            r"expected numbers \[2, K, H, W\], scores and classes, got float32 \[3, 3, 4, 6\]",
        ),
        (torch.zeros(2, TOP_K, HEIGHT), r"expected numbers \[2, K, H, W\]"),
        (torch.zeros(2, 0, HEIGHT, WIDTH), r"expected numbers \[2, K, H, W\]"),
        (torch.zeros(2, TOP_K, HEIGHT, WIDTH, dtype=torch.int64), r"expected numbers .* got int64"),
        ({"map": 1}, "expected a tensor, got a dict"),
    ],
)
def test_a_file_of_another_kind_is_named_or_its_row_fails(folder, tmp_path, value, problem):
    torch.save(value, folder / "b" / "5.pt")
    with pytest.raises(MapsError, match=rf"b/5\.pt: .*{problem}"):
        run(folder, tmp_path / "s.zarr")
    assert run(folder, tmp_path / "s.zarr", skip_bad=True).failures[0][0] == "b/5.JPEG"


def test_a_file_that_has_gone_or_is_cut_off(folder, tmp_path, monkeypatch):
    whole = (folder / "b" / "4.pt").read_bytes()
    (folder / "b" / "4.pt").write_bytes(whole[:-1000])
    with pytest.raises(MapsError, match=r"b/4\.pt: "):
        run(folder, tmp_path / "s.zarr")
    images = by_extension(str(folder), ".JPEG")
    (folder / "b" / "4.pt").unlink()
    monkeypatch.setattr("labelstore.pipelines.exchange.pt_import.by_extension", lambda *_: images)
    with pytest.raises(MapsError, match=r"b/4\.pt: cannot be read: No such file"):
        run(folder, tmp_path / "s.zarr")
    assert run(folder, tmp_path / "s.zarr", skip_bad=True).failures == (
        ("b/4.JPEG", "cannot be read: No such file or directory"),
    )


def test_the_first_file_may_be_bad(folder, tmp_path):
    (folder / "a" / "1.pt").write_bytes(b"")
    with pytest.raises(MapsError, match=r"a/1\.pt: expected a tensor as torch.save writes it, got an empty file"):
        run(folder, tmp_path / "s.zarr")
    assert run(folder, tmp_path / "s.zarr", skip_bad=True).counts.done == 5


def test_nothing_but_bad_files(tmp_path):
    (tmp_path / "maps" / "a").mkdir(parents=True)
    (tmp_path / "maps" / "a" / "1.pt").write_bytes(b"no")
    with pytest.raises(MapsError, match=r"a/1\.pt: "):
        run(tmp_path / "maps", tmp_path / "s.zarr", skip_bad=True)
    with pytest.raises(ImagesError, match=r"expected files \*\.pt below this folder, found none"):
        run(write_empty(tmp_path / "empty"), tmp_path / "s.zarr")
    with pytest.raises(ImagesError, match="expected a folder of label maps, <folder>/<name>.pt, found nothing"):
        run(tmp_path / "nowhere", tmp_path / "s.zarr")


def write_empty(folder):
    folder.mkdir()
    (folder / "readme.txt").write_text("nothing here")
    return folder


@pytest.fixture
def images(tmp_path):
    for image_id in IDS:
        file = (tmp_path / "images" / image_id).with_suffix(".png" if image_id.startswith("a") else ".jpg")
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(file)
    return tmp_path / "images"


def test_ids_are_the_images_where_they_are_at_hand(folder, images, tmp_path):
    heard = Heard()
    torch.save(pt_files.maps()[0].clone(), folder / "b" / "stray.pt")
    run(folder, tmp_path / "s.zarr", heard, images=str(images))
    reader = LabelMapReader(tmp_path / "s.zarr")
    assert list(reader.ids) == ["a/1.png", "a/2.png", "b/3.jpg", "b/4.jpg", "b/5.jpg", "b/6.jpg"]
    np.testing.assert_array_equal(reader.read(list(reader.ids)).classes, pt_files.maps()[:, 1])
    assert heard.warnings == [f"1 files have no image below {images}, and are left out: b/stray.pt"]
    assert reader.info.images_root == str(images)


def test_images_without_a_map_are_named_or_fail(folder, images, tmp_path):
    (folder / "b" / "6.pt").unlink()
    with pytest.raises(ImagesError, match=r"1 of 6 images below .* have no map: expected b/6\.pt for b/6\.jpg"):
        run(folder, tmp_path / "s.zarr", images=str(images))
    summary = run(folder, tmp_path / "s.zarr", images=str(images), skip_bad=True)
    assert summary.failures == (("b/6.jpg", "no file for this image"),)


def test_files_are_also_found_where_the_reference_looks(tmp_path):
    """Its loader takes the last folder, and the name up to the first dot."""
    for name in ("train/n01/x.y.JPEG", "train/n01/z.JPEG"):
        (tmp_path / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(tmp_path / "images" / name)
    write_folder(tmp_path / "maps", pt_files.maps(2), ("n01/x.JPEG", "n01/z.JPEG"))
    found = by_images(str(tmp_path / "maps"), str(tmp_path / "images"), False, Observer())
    assert list(zip(found.ids, found.files, strict=True)) == [
        ("train/n01/x.y.JPEG", "n01/x.pt"),
        ("train/n01/z.JPEG", "n01/z.pt"),
    ]


def test_an_import_goes_on_where_it_was_interrupted(folder, tmp_path, monkeypatch):
    run(folder, tmp_path / "whole.zarr")
    commit = task.ShardRows.commit

    def interrupted(rows):
        if rows.shard == 1:
            raise KeyboardInterrupt
        return commit(rows)

    monkeypatch.setattr(task.ShardRows, "commit", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(folder, tmp_path / "s.zarr")
    monkeypatch.undo()
    assert LabelMapReader(tmp_path / "s.zarr").status().tolist() == [Status.DONE] * 4 + [Status.PENDING] * 2
    heard = Heard()
    assert run(folder, tmp_path / "s.zarr", heard).new_rows == 2
    assert heard.plans == [(6, 4)]
    assert store_contents(tmp_path / "s.zarr") == store_contents(tmp_path / "whole.zarr")
    assert run(folder, tmp_path / "s.zarr").new_rows == 0


def test_another_store_is_not_touched(folder, picture_store, tmp_path):
    run(folder, tmp_path / "s.zarr")
    before = store_contents(tmp_path / "s.zarr")
    with pytest.raises(StoreMismatchError, match=r"maps imported as \('relabel', 'xy'\) \(the store's: \('relabel', 'yx'\)\)"):
        run(folder, tmp_path / "s.zarr", axes="xy")
    with pytest.raises(StoreMismatchError, match=r"num_classes 13 \(the store has 12\)"):
        run(folder, tmp_path / "s.zarr", num_classes=13)
    (folder / "a" / "1.pt").rename(folder / "a" / "0.pt")
    with pytest.raises(StoreMismatchError, match="expected the same 6 images, found others"):
        run(folder, tmp_path / "s.zarr")
    assert store_contents(tmp_path / "s.zarr") == before
    copy = shutil.copytree(picture_store, tmp_path / "pictures.zarr")
    with pytest.raises(StoreMismatchError, match="there is another store"):
        run(folder, copy)


def test_workers_make_the_same_store(tmp_path):
    ids = tuple(f"{'ab'[number % 2]}/{number:03}.JPEG" for number in range(120))
    root = write_folder(tmp_path / "maps", ids=ids)
    run(root, tmp_path / "serial.zarr")
    workers = replace(SERIAL, workers=2)
    assert run(root, tmp_path / "workers.zarr", resources=workers).counts.done == 120
    assert store_contents(tmp_path / "serial.zarr") == store_contents(tmp_path / "workers.zarr")


@pytest.mark.slow
def test_a_worker_that_dies_again_and_again_ends_the_run_in_words(tmp_path, monkeypatch):
    root = write_folder(tmp_path / "maps")
    monkeypatch.setattr("labelstore.pipelines.exchange.transfer.TRANSFERRING", DEADLY)
    heard = Heard()
    with pytest.raises(RunError, match=r"ha(s|ve) ended the worker process 3 times with nothing else running"):
        run(root, tmp_path / "s.zarr", heard, resources=replace(SERIAL, workers=1))
    assert "transferring ended the worker process 3 times: set aside" in heard.warnings[0]


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 4), st.booleans(), st.sampled_from(["yx", "xy"]))
def test_what_is_exported_after_an_import_is_what_was_imported(tmp_path_factory, seed, top_k, ties, axes):
    """Within half a step, and the classes exactly, in their order, ties included; a second time round to the bit."""
    root = tmp_path_factory.mktemp("any")
    maps = pt_files.maps(seed=seed, top_k=top_k)
    if ties:
        maps[:, 0] = (maps[:, 0] / 4).round()
    write_folder(root / "0", maps if axes == "yx" else maps.transpose(3, 4))
    for number in range(2):
        run(root / str(number), root / f"{number}.zarr", axes=axes)
        export_pt(str(root / f"{number}.zarr"), str(root / str(number + 1)), axes, Selection(), Observer())
    first, again = (read_folder(root / name) for name in ("1", "2"))
    assert torch.equal(first, again)
    found = first if axes == "yx" else first.transpose(3, 4)
    assert torch.equal(found[:, 1], maps[:, 1])
    step = (maps[:, 0].amax(dim=(1, 2, 3)) - maps[:, 0].amin(dim=(1, 2, 3))) / 255
    off = (found[:, 0] - maps[:, 0]).abs().amax(dim=(1, 2, 3))
    assert (off <= step / 2 + 1e-5 * (1 + maps[:, 0].abs().max())).all()


def test_images_in_one_folder_are_listed_as_they_are_found(tmp_path, monkeypatch):
    """Of many files in one folder no more is kept than their ids: entries are let go of one by one."""
    names = [f"{number:05}" for number in range(2000)]
    (tmp_path / "maps").mkdir()
    for name in names:
        (tmp_path / "maps" / f"{name}.pt").touch()
    alive, most = set(), [0]
    scandir = os.scandir

    class Scan:
        def __init__(self, folder):
            self.entries = scandir(folder)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self.entries.close()

        def __iter__(self):
            for number, entry in enumerate(self.entries):
                alive.add(number)
                most[0] = max(most[0], len(alive))
                yield entry
                alive.remove(number)

    monkeypatch.setattr(os, "scandir", Scan)
    found = by_extension(str(tmp_path / "maps"), ".JPEG")
    assert found.ids == [f"{name}.JPEG" for name in names]
    assert most == [1]
    assert found.files[3:5] == ("00003.pt", "00004.pt")
