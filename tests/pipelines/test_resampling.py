"""`verify --sample`: what annotating rows again tells, of stores and images that are what they were, and of others."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from damage import rewrite, rows_of
from folders import contents, edit_attributes
from pictures import paint
from runs import SERIAL

from labelstore.errors import ImagesError, OptionError, StoreMismatchError
from labelstore.pipelines.annotate import annotate
from labelstore.pipelines.observer import Observer
from labelstore.pipelines.resampling import Sample, sample_again
from labelstore.pipelines.resources import Resources
from labelstore.pipelines.settings import Settings
from labelstore.pipelines.sources import ImagesSpec
from labelstore.pipelines.verifying import verify_store

MODELS = ("toy_annotators:colours",)


@pytest.fixture
def images(pictures, tmp_path) -> Path:
    return Path(shutil.copytree(pictures, tmp_path / "images"))


def again(store: Path, count: int = 100, images: Path | None = None, resources: Resources = SERIAL) -> Sample:
    return sample_again(str(store), ImagesSpec((str(images),)) if images else None, count, resources, MODELS)


def test_an_untouched_store_and_its_images_are_the_same(store):
    before = contents(store)
    found = again(store)
    assert (found.rows, found.problems) == (21, ())
    assert found.mean_l1 <= found.largest_l1 < 1e-6
    assert contents(store) == before


@pytest.mark.parametrize("count", [1, 5, 21])
def test_as_many_rows_as_are_asked_for(topk, count):
    assert again(topk, count).rows == count


def test_other_batches_move_labels_by_next_to_nothing(store):
    found = again(store, resources=Resources(workers=0, device="cpu", threads=2, decode_threads=1, batch_size=7))
    assert (found.rows, found.problems) == (21, ())
    assert found.largest_l1 < 0.01


def test_an_image_that_was_exchanged_is_found(store, images):
    shutil.copy(images / "red" / "1.png", images / "blue" / "5.png")
    found = again(store, images=images)
    assert found.problems == (("blue/5.png", "the image is not the one that the map was made from"),)
    assert found.rows == 21
    assert found.largest_l1 < 1e-6


def test_an_image_that_can_no_longer_be_decoded_is_found(topk, images):
    (images / "blue" / "5.png").write_text("not an image")
    ((image_id, reason),) = again(topk, images=images).problems
    assert image_id == "blue/5.png"
    assert "cannot identify image file" in reason


def test_a_map_of_another_image_is_found_though_verify_cannot(store):
    other = rows_of(store, 5)  # red/6.png

    def exchange(arrays):
        for name in arrays.keys() - {"image_crc32"}:
            arrays[name][2] = other[name][0]

    rewrite(store, 1, exchange)
    assert verify_store(str(store), 1, Observer()).whole
    ((image_id, reason),) = again(store).problems
    assert image_id == "blue/6.png"
    assert reason.startswith("its soft label is ")
    assert reason.endswith(" from the one of today (L1)")


def test_images_in_another_place_are_found_there(topk, images):
    found = again(topk, images=images)
    assert (found.rows, found.problems) == (21, ())


def test_some_of_the_images_will_do(topk, images):
    shutil.rmtree(images / "red")
    assert again(topk, images=images).rows == 14


def test_images_that_are_gone(topk, make_store, images, tmp_path):
    make_store(images, tmp_path / "own.zarr")
    shutil.rmtree(images)
    with pytest.raises(ImagesError, match="images"):
        again(tmp_path / "own.zarr")
    paint(tmp_path / "other" / "x.png", "red")
    with pytest.raises(StoreMismatchError, match="no row that is done has its image below .*other"):
        again(topk, images=tmp_path / "other")


def test_a_store_that_does_not_say_where_its_images_are(topk, images):
    edit_attributes(topk, lambda attributes: attributes.update(images_root=None))
    with pytest.raises(ImagesError, match="name them with --images"):
        again(topk)
    assert again(topk, images=images).rows == 21


def test_an_annotator_that_is_another_now(topk):
    edit_attributes(topk, lambda attributes: attributes["annotator"].update(weights_sha256=64 * "0"))
    with pytest.raises(StoreMismatchError, match="expected the annotator that the store was begun with"):
        again(topk)


def test_a_store_that_was_extended_has_its_images_in_two_places(topk, tmp_path):
    for number in range(5):
        paint(tmp_path / "more" / "cyan" / f"{number}.png", "cyan")
    annotate(tmp_path / "more", str(topk), Settings("toy_annotators:colours"), SERIAL, Observer(), extend=True)
    found = again(topk)
    assert (found.rows, found.problems) == (26, ())


def test_pending_and_failed_rows_are_not_compared(make_store, images, tmp_path):
    (images / "blue" / "5.png").write_text("not an image")
    make_store(images)
    (tmp_path / "labels.zarr" / "commits" / "c.0.0.0").unlink()
    found = again(tmp_path / "labels.zarr")
    assert (found.rows, found.problems) == (16, ())


def test_a_device_that_is_not_there(topk):
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    with pytest.raises(OptionError, match="no CUDA device"):
        again(topk, resources=Resources(workers=0, device="cuda", threads=1, decode_threads=1, batch_size=4))


def test_ids_that_were_exchanged_are_found_by_their_commits_and_serve_no_label(topk):
    whole = verify_store(str(topk), 1, Observer())
    assert whole.whole
    one, other = topk / "ids" / "c.1.0", topk / "ids" / "c.2.0"
    first, second = one.read_bytes(), other.read_bytes()
    one.write_bytes(second)
    other.write_bytes(first)
    found = verify_store(str(topk), 1, Observer())
    assert found.damaged == [1, 2]
    compared = again(topk)
    assert compared.problems == ()
    assert 0 < compared.rows <= whole.info.num_rows - 8, "their rows are pending"
