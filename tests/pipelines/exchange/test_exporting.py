"""Stores out: the reference's files, tar files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pt_files
import pytest
import torch
from pt_files import CLASSES, HEIGHT, TOP_K, WIDTH
from runs import SERIAL, Heard
from torchvision.ops import roi_align
from webdataset.autodecode import Decoder, basichandlers
from webdataset.tariterators import group_by_keys, tar_file_expander

from labelstore import LabelMapReader
from labelstore.errors import ImagesError, OptionError
from labelstore.pipelines.exchange.export_pt import export_pt
from labelstore.pipelines.exchange.export_tar import export_tar
from labelstore.pipelines.exchange.pt_import import PtImport, import_pt
from labelstore.pipelines.exchange.selection import Selection
from labelstore.pipelines.observer import Observer
from labelstore.pipelines.writer import LabelMapWriter

ALL = Selection()


def make(store, ids, classes=None, scores=None):
    """A store of maps of `pt_files`, or of these."""
    maps = pt_files.maps(len(ids)).numpy()
    classes, scores = maps[:, 1].astype(np.uint16) if classes is None else classes, maps[:, 0] if scores is None else scores
    with LabelMapWriter.create(store, ids, num_classes=CLASSES, map_size=(HEIGHT, WIDTH), top_k=TOP_K) as writer:
        for shard in writer.pending():
            at = writer.info.shard_rows(shard)
            with writer.shard(shard) as rows:
                rows.put_maps(0, classes[at.start : at.stop], scores[at.start : at.stop])
    return LabelMapReader(store)


@pytest.mark.parametrize("axes", ["yx", "xy"])
def test_an_import_of_an_export_equals_the_store(axes, store, tmp_path):
    before, heard = LabelMapReader(store), Heard()
    done = export_pt(str(store), str(tmp_path / "maps"), axes, ALL, heard)
    files = sorted(file.relative_to(tmp_path / "maps").as_posix() for file in (tmp_path / "maps").rglob("*.pt"))
    assert files == [image_id.replace(".png", ".pt") for image_id in before.ids]
    assert (done.images, done.left_out, heard.counts[-1]) == (21, 0, (21, 0))
    assert done.num_bytes == sum(file.stat().st_size for file in (tmp_path / "maps").rglob("*.pt"))
    asked = PtImport(str(tmp_path / "maps"), axes=axes, extension=".png", num_classes=before.num_classes)
    import_pt(asked, str(tmp_path / "back.zarr"), SERIAL, Observer())
    after, ids = LabelMapReader(tmp_path / "back.zarr"), list(before.ids)
    assert list(after.ids) == ids
    np.testing.assert_array_equal(after.read(ids).classes, before.read(ids).classes)
    if before.info.encoding == "topk":
        one, other = before.read_packed(ids), after.read_packed(ids)
        for name, values in one.items():
            np.testing.assert_array_equal(values, other[name])


def test_the_references_own_loader_trains_on_the_right_labels(tmp_path):
    """Files with axes ``xy``; it hands (top, left, bottom, right) to an operator that takes (x1, y1, x2, y2)."""
    reader = make(tmp_path / "s.zarr", ["a/1.JPEG", "a/2.JPEG"])
    export_pt(str(tmp_path / "s.zarr"), str(tmp_path / "maps"), "xy", ALL, Observer())
    for image_id in reader.ids:
        scores, classes = torch.load(tmp_path / "maps" / image_id.replace(".JPEG", ".pt"), weights_only=True)
        dense = torch.zeros(1000, *scores.shape[1:]).scatter_(0, classes.long(), scores)[:CLASSES]
        for left, top, right, bottom in ((0, 0, 1, 1), (0.5, 0.1, 0.9, 0.4), (0.2, 0.3, 0.4, 1.0)):
            height, width = scores.shape[1:]  # the map's, which is turned
            swapped = torch.tensor([[0.0, top * width - 0.5, left * height - 0.5, bottom * width - 0.5, right * height - 0.5]])
            theirs = torch.softmax(roi_align(dense[None], swapped, (1, 1)).flatten(), 0).numpy()
            np.testing.assert_allclose(reader.pool([image_id], [[left, top, right, bottom]])[0], theirs, atol=1e-5)


def test_where_a_map_is_short_of_classes_others_are_named_with_logit_0(tmp_path):
    """The reference scatters class numbers: 65535 would end it."""
    classes = np.broadcast_to(np.array([0, 2, 65535], np.uint16)[None, :, None, None], (1, TOP_K, HEIGHT, WIDTH)).copy()
    classes[0, 1:, 1, 1] = 65535
    scores = np.broadcast_to(np.array([3.0, -1.0, -1.0], np.float32)[None, :, None, None], classes.shape)
    reader = make(tmp_path / "s.zarr", ["a/1.JPEG"], classes, scores)
    export_pt(str(tmp_path / "s.zarr"), str(tmp_path / "maps"), "yx", ALL, Observer())
    found = torch.load(tmp_path / "maps" / "a" / "1.pt", weights_only=True)
    assert found[1, :, 0, 0].tolist() == [0, 2, 1]
    assert found[0, 2, 0, 0] == 0
    assert found[1, :, 1, 1].tolist() == [0, 1, 2]
    assert found[0, 1:, 1, 1].tolist() == [0, 0]
    import_pt(PtImport(str(tmp_path / "maps"), axes="yx", num_classes=CLASSES), str(tmp_path / "b.zarr"), SERIAL, Observer())
    box = [[0.0, 0.0, 0.6, 0.7]]
    np.testing.assert_allclose(reader.pool([0], box), LabelMapReader(tmp_path / "b.zarr").pool([0], box), atol=5e-3)


def test_names_that_the_reference_would_mix_up(tmp_path):
    make(tmp_path / "s.zarr", ["n01/x.1.JPEG", "n01/x.2.JPEG", "n01/y.JPEG"])
    with pytest.raises(ImagesError, match=r"'n01/x\.1\.JPEG' and 'n01/x\.2\.JPEG': the reference's loader looks in a file of"):
        export_pt(str(tmp_path / "s.zarr"), str(tmp_path / "maps"), "yx", ALL, Observer())
    with pytest.raises(ImagesError, match=r"WebDataset's key of an image ends at the first dot .* 'n01/x' for both"):
        export_tar(str(tmp_path / "s.zarr"), str(tmp_path / "maps"), 10, ALL, Observer())
    assert not (tmp_path / "maps").exists()
    assert (
        export_pt(str(tmp_path / "s.zarr"), str(tmp_path / "maps"), "yx", Selection(None, ("*[!2].JPEG",)), Observer()).images
        == 2
    )
    assert sorted(file.name for file in (tmp_path / "maps" / "n01").iterdir()) == ["x.pt", "y.pt"]


def samples_of(tar):
    """What WebDataset makes of a tar file; it leaves files open that it opens itself."""
    with Path(tar).open("rb") as stream:
        found = list(group_by_keys(tar_file_expander([{"url": tar, "stream": stream}])))
    return map(Decoder([basichandlers]), found)


def test_tar_files_are_read_by_webdataset(store, tmp_path):
    reader = LabelMapReader(store)
    done = export_tar(str(store), str(tmp_path / "tars"), 8, ALL, Observer())
    names = sorted(file.name for file in (tmp_path / "tars").iterdir())
    assert names == ["labelstore.json", "maps-000000.tar", "maps-000001.tar", "maps-000002.tar"]
    assert json.loads((tmp_path / "tars" / "labelstore.json").read_text())["num_classes"] == reader.num_classes
    tars = [str(tmp_path / "tars" / name) for name in names[1:]]
    assert done.num_bytes == sum(file.stat().st_size for file in (tmp_path / "tars").glob("*.tar"))
    samples = [sample for tar in tars for sample in samples_of(tar)]
    assert [sample["__key__"] + ".png" for sample in samples] == list(reader.ids)
    for sample in samples:
        one, said = reader[sample["json"]["id"]], sample["json"]
        np.testing.assert_array_equal(sample["classes.npy"], one.classes)
        np.testing.assert_array_equal(sample["scores.npy"], one.scores)
        assert said["target"] == reader.targets[reader.ids.row(said["id"])]
        assert said["image_crc32"] == reader.image_crc32(said["id"])


def test_the_same_store_gives_the_same_bytes(topk, tmp_path):
    for name in ("one", "two"):
        export_tar(str(topk), str(tmp_path / name), 100, ALL, Observer())
    assert (tmp_path / "one" / "maps-000000.tar").read_bytes() == (tmp_path / "two" / "maps-000000.tar").read_bytes()


def test_images_without_a_map_are_left_out(topk, tmp_path):
    (topk / "commits" / "c.0.0.0").unlink()
    heard = Heard()
    done = export_pt(str(topk), str(tmp_path / "maps"), "yx", ALL, heard)
    assert (done.images, done.left_out) == (17, 4)
    assert heard.warnings == ["4 images without a map (failed or pending) are left out"]
    with pytest.raises(OptionError, match=r"none of the 4 chosen rows holds a map"):
        export_pt(str(topk), str(tmp_path / "none"), "yx", Selection(None, ("blue/[0-3].png",)), Observer())


def test_nothing_is_overwritten(topk, tmp_path):
    (tmp_path / "maps").mkdir()
    (tmp_path / "maps" / "mine.txt").write_text("mine")
    for export in (
        lambda: export_pt(str(topk), str(tmp_path / "maps"), "yx", ALL, Observer()),
        lambda: export_tar(str(topk), str(tmp_path / "maps"), 10, ALL, Observer()),
        lambda: export_pt(str(topk), str(tmp_path / "maps" / "mine.txt"), "yx", ALL, Observer()),
    ):
        with pytest.raises(OptionError, match="expected nothing, or an empty folder"):
            export()
    assert [file.name for file in (tmp_path / "maps").iterdir()] == ["mine.txt"]
