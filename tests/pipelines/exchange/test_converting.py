"""Stores in another encoding."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from folders import store_contents
from pt_files import CLASSES, HEIGHT, WIDTH
from runs import SERIAL, Heard

from labelstore import LabelMapReader
from labelstore.errors import OptionError, StoreMismatchError
from labelstore.fetch import RowFetcher
from labelstore.pipelines.choice import EncodingChoice
from labelstore.pipelines.exchange.converting import convert_store
from labelstore.pipelines.exchange.dense import dense_logits
from labelstore.pipelines.observer import Observer
from labelstore.pipelines.verifying import verify_store
from labelstore.pipelines.writer import LabelMapWriter
from labelstore.storage import open_source

TOPK, SPECTRAL = EncodingChoice("topk"), EncodingChoice("spectral")
BOXES = [(0.0, 0.0, 1.0, 1.0), (0.1, 0.2, 0.5, 0.9), (0.6, 0.0, 1.0, 0.4), (0.0, 0.7, 0.3, 0.75)]


def convert(store, dest, choice, top_k=None, observer=None, resources=SERIAL):
    return convert_store(str(store), str(dest), choice, top_k, resources, observer or Observer())


@pytest.fixture(params=["topk", "spectral"])
def smooth(request, tmp_path):
    """Maps that vary slowly, in a store of either encoding; and their dense logits."""
    rng = np.random.default_rng(0)
    y, x = np.arange(HEIGHT) + 0.5, np.arange(WIDTH) + 0.5
    waves = np.stack(
        [np.outer(np.cos(np.pi * u * y / HEIGHT), np.cos(np.pi * v * x / WIDTH)) for u in range(2) for v in range(2)]
    )
    logits = np.einsum("ncw,wyx->ncyx", rng.normal(0, 2, (10, CLASSES, 4)), waves).astype(np.float32)
    ids = [f"{number}.jpg" for number in range(10)]
    store = tmp_path / "made.zarr"
    options = {"num_classes": CLASSES, "map_size": (HEIGHT, WIDTH), "shard_size": 4, "encoding": request.param}
    with LabelMapWriter.create(store, ids, top_k=5, **options) as writer:
        for shard in writer.pending():
            at = writer.info.shard_rows(shard)
            with writer.shard(shard) as rows:
                rows.put_logits(0, logits[at.start : at.stop], range(at.start, at.stop))
    return store, logits


def dense(store):
    source, info = open_source(store)
    return dense_logits(RowFetcher(source, info).maps(np.arange(len(LabelMapReader(store)))), info)


def test_dense_logits_are_what_a_reader_pools(store):
    reader, logits = LabelMapReader(store), dense(store)
    weights = np.full((reader.map_size[0] * reader.map_size[1],), 1 / (reader.map_size[0] * reader.map_size[1]))
    mean = logits.reshape(*logits.shape[:2], -1) @ weights
    soft = np.exp(mean - mean.max(axis=1, keepdims=True))
    soft /= soft.sum(axis=1, keepdims=True)
    found = reader.pool(list(reader.ids), np.tile((0.0, 0.0, 1.0, 1.0), (len(reader), 1)))
    np.testing.assert_allclose(found, soft, atol=2e-2)  # RoIAlign's weights at the edges differ a little from a mean
    assert (found.argmax(axis=1) == soft.argmax(axis=1)).all()


@pytest.mark.parametrize("choice", [TOPK, SPECTRAL], ids=["topk", "spectral"])
def test_labels_stay_what_they_are_as_far_as_the_store_says(smooth, choice, tmp_path):
    store, _ = smooth
    heard = Heard()
    convert(store, tmp_path / "s.zarr", choice, top_k=CLASSES, observer=heard)
    before, after = LabelMapReader(store), LabelMapReader(tmp_path / "s.zarr")
    distance = after.info.imported.distance
    assert (after.info.encoding, after.info.imported.kind, distance.images) == (choice.name, "store", 10)
    assert heard.said == [
        f"distance that this adds to labels of crops: L1 {distance.l1:.3f}, KL {distance.kl:.3f}, same best class for "
        f"{distance.agreement:.0%} (10 images)"
    ]
    found = [
        np.abs(after.pool(list(after.ids), [box] * 10) - before.pool(list(before.ids), [box] * 10)).sum(axis=1) for box in BOXES
    ]
    assert abs(np.mean(found) - distance.l1) < 0.1
    # All classes are kept: but for rounding, and for what is not smooth about the best five, nothing is lost.
    same_kind = before.info.encoding == "spectral" or choice is TOPK
    assert distance.l1 < (0.06 if same_kind else 0.5)
    assert (list(after.ids), after.targets.tolist()) == (list(before.ids), before.targets.tolist())
    assert [after.image_crc32(row) for row in range(10)] == list(range(10))
    assert after.annotator == before.annotator
    assert verify_store(str(tmp_path / "s.zarr"), 1, Observer()).whole


def test_there_and_back_changes_little(smooth, tmp_path):
    store, _ = smooth
    other = SPECTRAL if LabelMapReader(store).info.encoding == "topk" else TOPK
    convert(store, tmp_path / "there.zarr", other, top_k=CLASSES)
    convert(tmp_path / "there.zarr", tmp_path / "back.zarr", EncodingChoice(LabelMapReader(store).info.encoding), top_k=CLASSES)
    convert(tmp_path / "back.zarr", tmp_path / "again.zarr", other, top_k=CLASSES)
    one, two = (LabelMapReader(tmp_path / name) for name in ("there.zarr", "again.zarr"))
    soft = [found.pool(list(found.ids), [BOXES[1]] * 10) for found in (one, two)]
    assert np.abs(soft[0] - soft[1]).sum(axis=1).mean() < 0.1


def test_layout_failures_and_holes_are_kept(store, tmp_path, make_store, pictures):
    choice = SPECTRAL if LabelMapReader(store).info.encoding == "topk" else TOPK
    convert(store, tmp_path / "s.zarr", choice)
    before, after = LabelMapReader(store), LabelMapReader(tmp_path / "s.zarr")
    assert (after.info.shard_size, after.info.extents, after.top_k) == (before.info.shard_size, before.info.extents, 3)
    assert after.info.class_names == before.info.class_names
    assert list(after.ids) == list(before.ids)


def test_failed_rows_stay_failed(make_store, tmp_path, pictures):
    from pictures import paint

    for number in range(6):
        paint(tmp_path / "images" / f"{number}.png", "red", "blue")
    (tmp_path / "images" / "2.png").write_bytes(b"no image")
    store = tmp_path / "made.zarr"
    make_store(tmp_path / "images", store)
    summary = convert(store, tmp_path / "s.zarr", SPECTRAL)
    assert [image_id for image_id, _ in summary.failures] == ["2.png"]
    assert LabelMapReader(tmp_path / "s.zarr").error("2.png") == LabelMapReader(store).error("2.png")


def test_pending_rows_are_to_be_made_first(topk, tmp_path):
    (topk / "commits" / "c.1.0.0").unlink()
    with pytest.raises(OptionError, match=r"4 rows are pending; make them first, or take .*: labelstore subset"):
        convert(topk, tmp_path / "s.zarr", SPECTRAL)
    assert not (tmp_path / "s.zarr").exists()


def test_choices_must_fit(topk, tmp_path):
    with pytest.raises(OptionError, match="expected another place than the store's"):
        convert(topk, topk, SPECTRAL)
    with pytest.raises(OptionError, match="--patterns: goes with --encoding spectral"):
        convert(topk, tmp_path / "s.zarr", EncodingChoice("topk", patterns=3))
    with pytest.raises(OptionError, match="--frequencies 50: expected at most 7"):
        convert(topk, tmp_path / "s.zarr", EncodingChoice("spectral", frequencies=50))
    with pytest.raises(OptionError, match="--top-k 99: expected at most"):
        convert(topk, tmp_path / "s.zarr", TOPK, top_k=99)


def test_a_conversion_goes_on_and_takes_no_other_store(topk, tmp_path):
    convert(topk, tmp_path / "whole.zarr", SPECTRAL)
    convert(topk, tmp_path / "s.zarr", SPECTRAL)
    (tmp_path / "s.zarr" / "commits" / "c.2.0.0").unlink()
    assert convert(topk, tmp_path / "s.zarr", SPECTRAL).new_rows == 4
    assert store_contents(tmp_path / "s.zarr") == store_contents(tmp_path / "whole.zarr")
    with pytest.raises(StoreMismatchError, match="spectral"):
        convert(topk, tmp_path / "s.zarr", EncodingChoice("spectral", patterns=2))


@pytest.mark.slow
def test_workers_make_the_same_store(topk, tmp_path):
    convert(topk, tmp_path / "serial.zarr", SPECTRAL)
    convert(topk, tmp_path / "workers.zarr", SPECTRAL, resources=replace(SERIAL, workers=1))
    assert store_contents(tmp_path / "serial.zarr") == store_contents(tmp_path / "workers.zarr")


def test_image_sizes_are_kept(store, tmp_path):
    convert(store, tmp_path / "s.zarr", SPECTRAL if "classes" in {path.name for path in store.iterdir()} else TOPK)
    assert LabelMapReader(tmp_path / "s.zarr").image_size(range(21)).tolist() == [[60, 40]] * 21
