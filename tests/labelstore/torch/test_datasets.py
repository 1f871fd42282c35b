"""Data sets of several libraries give ids, files and classes by themselves, and the soft labels of a plain folder."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import timm.data
import torch
from torch.utils.data import ConcatDataset, DataLoader, Subset
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from labelstore import LabelMapReader
from labelstore.errors import ImagesError, OptionError, TransformError
from labelstore.pipelines.writer import LabelMapWriter
from labelstore.torch import SoftLabelDataset
from labelstore.torch.datasets import look_at

COLOURS = ("blue", "green", "red")
MAP = {name: f"colour-{name}" for name in COLOURS}
PLAIN = v2.Compose([v2.Resize((16, 16)), v2.PILToTensor()])


@pytest.fixture
def reader(picture_store: Path) -> LabelMapReader:
    return LabelMapReader(picture_store)


@pytest.fixture
def folder(pictures: Path) -> ImageFolder:
    return ImageFolder(str(pictures))


def labels_of(data: SoftLabelDataset) -> dict[str, Any]:
    """The soft label of every item by its image id."""
    return {key: data[index][1].numpy() for index, key in enumerate(data._images.ids)}


def make(dataset: Any, reader: LabelMapReader, **options: Any) -> SoftLabelDataset:
    return SoftLabelDataset(dataset, reader, **{"transform": PLAIN, "class_map": MAP, **options})


def assert_same_labels(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert one.keys() == other.keys()
    for key, label in one.items():
        np.testing.assert_array_equal(label, other[key], err_msg=key)


def test_parts_put_together_are_the_whole(folder, reader):
    parts = [Subset(folder, range(0, 9)), Subset(Subset(folder, range(9, 21)), range(12))]
    joined = make(ConcatDataset(parts), reader)
    assert_same_labels(labels_of(joined), labels_of(make(folder, reader)))
    assert joined.classes == COLOURS
    assert make(Subset(ConcatDataset(parts), [20, 0]), reader)._images.path(0).endswith("red/6.png")


def test_parts_must_agree_about_their_classes(folder, reader, pictures, tmp_path):
    shutil.copytree(pictures / "red", tmp_path / "other" / "apple")
    other = ImageFolder(str(tmp_path / "other"))
    with pytest.raises(ImagesError, match=r"same classes in the same order.*'blue'.*'apple'"):
        make(ConcatDataset([folder, other]), reader)
    with pytest.raises(ImagesError, match=r"'blue/0.png' is the id of items of two parts"):
        make(ConcatDataset([folder, folder]), reader)
    with pytest.raises(ImagesError, match="ImageFolder has a transform of its own"):
        make(ConcatDataset([folder, ImageFolder(str(pictures), PLAIN)]), reader)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # timm leaves its files open
def test_timms_data_set_is_a_folder(pictures, folder, reader):
    data = make(timm.data.ImageDataset(str(pictures)), reader, check_images=True)
    assert data.classes == COLOURS
    assert_same_labels(labels_of(data), labels_of(make(folder, reader)))


def test_timm_numbers_folders_as_people_do(tmp_path):
    for number in (1, 2, 10):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "a.png").write_bytes(b"never opened")
    assert look_at(timm.data.ImageDataset(str(tmp_path))).classes == ("1", "2", "10")
    assert look_at(ImageFolder(str(tmp_path))).classes == ("1", "10", "2")


def test_a_timm_data_set_of_upright_images_is_refused(pictures, make_store, tmp_path):
    make_store(pictures, exif="apply")
    with pytest.raises(ImagesError, match="load_upright"):
        make(timm.data.ImageDataset(str(pictures)), LabelMapReader(tmp_path / "labels.zarr"))


@pytest.fixture
def hugging_face(folder: ImageFolder) -> datasets.Dataset:
    """The pictures as rows, the images' paths beside their bytes."""
    names = look_at(folder).ids
    assert names is not None
    rows = {
        "image": [
            {"bytes": Path(path).read_bytes(), "path": name} for (path, _), name in zip(folder.samples, names, strict=True)
        ],
        "label": [target for _, target in folder.samples],
    }
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=list(COLOURS))})
    return datasets.Dataset.from_dict(rows, features=features)


def test_rows_of_hugging_face_are_joined_by_the_paths_in_them(hugging_face, folder, reader):
    data = make(hugging_face, reader, with_target=True)
    assert data.classes == COLOURS
    assert_same_labels(labels_of(data), labels_of(make(folder, reader)))
    assert [data[index][2] for index in (0, 8, 20)] == [0, 1, 2]


def test_a_selection_of_rows_keeps_its_own_ids(hugging_face, folder, reader):
    chosen = hugging_face.shuffle(seed=3).select(range(5))
    labels = labels_of(make(folder, reader))
    found = labels_of(make(chosen, reader))
    assert len(found) == 5
    assert_same_labels(found, {key: labels[key] for key in found})


def test_a_store_of_parquet_joins_the_same_parquet(hugging_face, make_store, tmp_path):
    file = tmp_path / "rows.parquet"
    hugging_face.to_parquet(file)
    make_store(file)
    rows = datasets.Dataset.from_parquet(str(file), cache_dir=str(tmp_path / "cache"))
    data = make(rows, LabelMapReader(tmp_path / "labels.zarr"))
    images, labels = next(iter(DataLoader(data, batch_size=21)))
    assert images.shape == (21, 3, 16, 16)
    assert labels.argmax(dim=1).tolist() == [0] * 7 + [1] * 7 + [2] * 7


def test_of_several_columns_one_is_to_be_chosen(hugging_face, reader):
    features = {**hugging_face.features, "coarse": datasets.ClassLabel(names=["cold", "warm"])}
    two = hugging_face.add_column("coarse", [0] * 21).cast(datasets.Features(features))
    with pytest.raises(ImagesError, match=r"label_key: .*several columns of kind ClassLabel \(label, coarse\)"):
        make(two, reader)
    assert make(two, reader, label_key="label").classes == COLOURS
    with pytest.raises(ImagesError, match="label_key: expected one of the columns image, label, coarse, got 'fine'"):
        make(two, reader, label_key="fine")
    with pytest.raises(ImagesError, match="image_key: no column of images"):
        make(two.remove_columns("image"), reader, label_key="label")


class Dicts:
    """A data set of dicts, of no library."""

    def __init__(self, folder: ImageFolder, make_row: Callable[[Any, int], Any]) -> None:
        self._folder, self._make = folder, make_row

    def __len__(self) -> int:
        return len(self._folder)

    def __getitem__(self, index: int) -> Any:
        return self._make(*self._folder[index])


def test_items_that_are_dicts_name_their_parts(folder, reader):
    ids = look_at(folder).ids
    data = make(Dicts(folder, lambda image, target: {"img": image, "y": target}), reader, ids=ids, class_map=[4, 3, 2])
    with pytest.raises(ImagesError, match=r"image_key: its items are dicts with the keys 'img', 'y'"):
        data[0]
    chosen = {"ids": ids, "class_map": [4, 3, 2], "image_key": "img", "with_target": True}
    named = Dicts(folder, lambda image, target: {"img": image, "y": target})
    assert make(named, reader, **chosen, label_key="y")[20][2] == 2
    assert make(named, reader, **chosen)[20][2] == -1, "no label is made up"
    with pytest.raises(ImagesError, match="label_key: its items are dicts"):
        make(named, reader, **chosen, label_key="label")[0]
    with pytest.raises(ImagesError, match="expected items .* got str"):
        make(Dicts(folder, lambda image, target: "x"), reader, ids=ids, class_map=[4, 3, 2])[0]


def test_a_path_is_no_reader(folder, picture_store):
    with pytest.raises(OptionError, match=r"reader: expected a LabelMapReader, got '.*labels.zarr': LabelMapReader"):
        SoftLabelDataset(folder, str(picture_store))
    with pytest.raises(OptionError, match="got NoneType"):
        SoftLabelDataset(folder, None)


def test_a_data_set_says_what_it_is(folder, reader):
    said = repr(make(folder, reader))
    assert said.startswith("SoftLabelDataset(ImageFolder of 21, ")
    assert said.endswith("Compose, 3 classes)")


def test_a_transform_that_is_set_later_is_followed(folder, reader):
    data = make(folder, reader, transform=None)
    assert data.transform is None
    whole = data[20][1]
    crop = v2.Compose([v2.RandomResizedCrop(16, scale=(0.1, 0.2)), v2.PILToTensor()])
    data.transform = crop
    assert data.transform is crop
    torch.manual_seed(0)
    image, label = data[0]
    torch.manual_seed(0)
    expected_image, expected = make(folder, reader, transform=crop)[0]
    assert torch.equal(image, expected_image)
    assert torch.equal(label, expected)
    assert label.shape == whole.shape
    with pytest.raises(TransformError, match="RandomRotation"):
        data.transform = v2.RandomRotation(30)
    with pytest.raises(TransformError, match="got None"):
        data.transform = None


@pytest.mark.parametrize("use_prefetcher", [False, True])
def test_timms_loader_trains_on_what_it_says(folder, reader, use_prefetcher):
    """`create_loader` sets the data set's transform; with its prefetcher pixels are bytes until they are on the device."""
    data = make(folder, reader, transform=None)
    loader = timm.data.create_loader(
        data, (3, 24, 24), 7, is_training=True, use_prefetcher=use_prefetcher, device=torch.device("cpu"), num_workers=0,
        mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25),
    )  # fmt: skip
    torch.manual_seed(5)
    images, labels = next(iter(loader))
    assert images.shape == (7, 3, 24, 24)
    assert images.dtype == torch.float32
    assert -2.01 < images.min() < -0.5 < 0.5 < images.max() < 2.01
    assert labels.shape == (7, 3)
    torch.testing.assert_close(labels.sum(dim=1), torch.ones(7), atol=1e-5, rtol=0)
    brightest = images.mean(dim=(2, 3)).argmax(dim=1)  # red, green or blue
    agree = (brightest == torch.tensor([2, 1, 0])[labels.argmax(dim=1)]).float().mean()
    assert agree > 0.8


def test_a_loader_that_transforms_by_itself_is_refused(folder, reader):
    """timm's scheduled sizes transform in a wrapper, which no box follows."""
    with pytest.raises(TransformError, match="got None"):
        timm.data.create_loader(
            make(folder, reader, transform=None), (3, 24, 24), 7, is_training=True, input_size_choices=[16, 24], num_workers=0
        )


def test_a_writer_and_a_data_set_of_arrays_need_nothing_else(tmp_path):
    """A data set that says nothing of itself: ids are given, and the classes are the user's word."""
    ids = [f"{number}.png" for number in range(4)]
    with LabelMapWriter.create(tmp_path / "s.zarr", ids, num_classes=3, map_size=(2, 2), top_k=2) as writer:
        for shard in writer.pending():
            with writer.shard(shard) as rows:
                for row in range(len(rows.ids)):
                    rows.put_logits(row, np.random.default_rng(row).normal(size=(1, 3, 2, 2)).astype(np.float32) * 9)
    images = torch.zeros(4, 3, 8, 8)
    data = SoftLabelDataset([(image, 0) for image in images], LabelMapReader(tmp_path / "s.zarr"), ids=ids, class_map="same")
    assert data[3][1].shape == (3,)
    assert data.classes is None
