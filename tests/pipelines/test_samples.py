"""The sample photographs: all there, real images, copied once, and clear words where they cannot be."""

from __future__ import annotations

import pytest

from labelstore.errors import ImagesError, MissingExtraError
from labelstore.pipelines import samples
from labelstore.pipelines.images import decode_image
from labelstore.pipelines.samples import SAMPLES, copy_samples
from labelstore.pipelines.sources import list_images


def test_every_sample_is_a_photograph_that_can_be_decoded(tmp_path):
    root = copy_samples(tmp_path / "new" / "samples")
    assert root == tmp_path / "new" / "samples"
    listing = list_images(root)
    assert sorted(listing.ids) == sorted(name for names in SAMPLES.values() for name in names)
    assert {"chelsea.png", "coffee.png"} <= set(listing.ids)
    for image_id in listing.ids:
        assert min(decode_image((root / image_id).read_bytes()).size) >= 200


def test_what_is_there_already_is_kept_and_what_is_missing_comes_back(tmp_path):
    copy_samples(tmp_path)
    whole = (tmp_path / "coffee.png").read_bytes()
    (tmp_path / "coffee.png").unlink()
    (tmp_path / "chelsea.png").write_bytes(b"my own")
    copy_samples(tmp_path)
    assert (tmp_path / "chelsea.png").read_bytes() == b"my own"
    assert (tmp_path / "coffee.png").read_bytes() == whole


def test_a_copy_that_was_cut_off_is_not_taken_for_a_sample(tmp_path, monkeypatch):
    class CutOff:
        def read_bytes(self):
            raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(samples, "_find", lambda package, name: CutOff())
        with pytest.raises(ImagesError, match="Input/output error"):
            copy_samples(tmp_path)
    (tmp_path / "coffee.png.partial").write_bytes(b"half of it")
    assert len(list_images(copy_samples(tmp_path)).ids) == sum(map(len, SAMPLES.values()))


@pytest.mark.parametrize("package", ["a_package_that_is_not_here", "labelstore"])
def test_a_sample_that_no_package_ships_names_the_extra(tmp_path, monkeypatch, package):
    monkeypatch.setattr(samples, "SAMPLES", {package: ("chelsea.png",)})
    with pytest.raises(MissingExtraError, match=rf"chelsea.png of {package} .*labelstore\[demo\]"):
        copy_samples(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_file_in_the_place_of_the_folder_is_an_error_with_words(tmp_path):
    (tmp_path / "samples").touch()
    with pytest.raises(ImagesError, match=r"samples: .*cannot be made: File exists"):
        copy_samples(tmp_path / "samples")
