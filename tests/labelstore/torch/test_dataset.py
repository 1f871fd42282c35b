"""`SoftLabelDataset` over real folders and stores: what it yields, in DataLoaders, and what it refuses."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, Subset, default_collate
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2
from toy_annotators import NAMES

from labelstore import FailedRowError, LabelMapReader, PendingRowError, UnknownIdError
from labelstore.boxes import WHOLE_IMAGE
from labelstore.errors import ClassMatchError, ImageMismatchError, ImagesError, OptionError, TransformError
from labelstore.torch import SoftLabelDataset, follow, load_upright, pool

MAP = {name: f"colour-{name}" for name in ("red", "green", "blue")}
COLUMNS = [NAMES.index(name) for name in ("blue", "green", "red")]  # the order of the folders
CROP = v2.Compose([v2.RandomResizedCrop(16, antialias=True), v2.RandomHorizontalFlip(), v2.PILToTensor()])
PLAIN = v2.Compose([v2.Resize((16, 16)), v2.PILToTensor()])


@pytest.fixture(params=["picture_store", "spectral_store"])
def reader(request: pytest.FixtureRequest) -> LabelMapReader:
    return LabelMapReader(request.getfixturevalue(request.param))


@pytest.fixture
def folder(pictures: Path) -> ImageFolder:
    return ImageFolder(str(pictures))


def make(dataset: Any, reader: LabelMapReader, transform: Any = PLAIN, **options: Any) -> SoftLabelDataset:
    return SoftLabelDataset(dataset, reader, transform, **{"class_map": MAP, **options})


class Records(Dataset):
    """A data set that is no folder, and does not name its classes."""

    def __init__(self, root: Path) -> None:
        self.files = sorted(root.rglob("*.png"))

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        return Image.open(self.files[index]).convert("RGB"), index % 3


def test_images_come_with_the_soft_labels_of_their_crops(folder, reader):
    soft = make(folder, reader, CROP)
    assert len(soft) == 21
    followed = follow(CROP)
    for index in (0, 8, 20):
        torch.manual_seed(index)
        image, label = soft[index]
        torch.manual_seed(index)
        expected_image, box = followed(folder[index][0])
        assert torch.equal(image, expected_image)
        expected = reader.pool([soft._images.ids[index]], box[None].numpy(), class_map=COLUMNS)[0]
        np.testing.assert_allclose(label.numpy(), expected, atol=1e-6)
        assert (label.dtype, label.shape) == (torch.float32, (3,))


def test_labels_follow_the_data_sets_classes(folder, reader):
    soft = make(folder, reader, with_target=True)
    for image, label, target in (soft[index] for index in (1, 8, 15)):
        assert image.shape == (3, 16, 16)
        assert label.argmax() == target


def test_a_batch_is_its_items(folder, reader):
    soft, indices = make(folder, reader), [3, 20, 3, 0]
    for (image, label), index in zip(soft.__getitems__(indices), indices, strict=True):
        one_image, one_label = soft[index]
        assert torch.equal(image, one_image)
        torch.testing.assert_close(label, one_label, atol=1e-6, rtol=0)


def test_a_batch_is_pooled_at_once(folder, reader, monkeypatch):
    calls: list[int] = []
    plain = LabelMapReader.pool
    monkeypatch.setattr(LabelMapReader, "pool", lambda self, rows, *rest: calls.append(len(rows)) or plain(self, rows, *rest))
    for _ in DataLoader(make(folder, reader), batch_size=8):
        pass
    assert calls == [8, 8, 5]


def test_maps_pool_to_the_same_labels_elsewhere(folder, reader):
    labels, maps = make(folder, reader, CROP), make(folder, reader, CROP, yields="maps")
    indices = list(range(21))
    torch.manual_seed(0)
    expected = torch.stack([label for _, label in labels.__getitems__(indices)])
    torch.manual_seed(0)
    images, batch = default_collate(maps.__getitems__(indices))
    found = pool(batch, batch["box"], reader.num_classes, map_size=reader.map_size, class_map=torch.from_numpy(maps.class_map))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    assert type(batch["box"]) is torch.Tensor
    assert images.shape == (21, 3, 16, 16)


def test_a_map_is_a_few_bytes(folder, reader):
    entry = make(folder, reader, yields="maps")[0][1]
    size = sum(part.numel() * part.element_size() for part in entry.values())
    if reader.info.spectral is None:
        assert size == reader.top_k * 7 * 7 * 3 + 8 + 32  # 3.4 kB for 15x15 and K = 5
    else:
        assert size == 12 + 2 * 4 + 5 * 3 + 3 * 3 + 3 * 4 * 4 + 1 + 32  # 0.5 kB for 1,000 classes


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.parametrize("yields", ["labels", "maps"])
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_workers(folder, reader, method, yields):
    soft = make(folder, reader, yields=yields, with_target=True)
    expected = default_collate(soft.__getitems__(list(range(21))))  # the parent has read before it forks
    loader = DataLoader(soft, batch_size=6, num_workers=2, multiprocessing_context=method)
    images, labels, targets = zip(*loader, strict=True)
    assert torch.equal(torch.cat(images), expected[0])
    assert torch.equal(torch.cat(targets), expected[2])
    if yields == "labels":
        torch.testing.assert_close(torch.cat(labels), expected[1], atol=1e-6, rtol=0)
    else:
        for name, part in expected[1].items():
            assert torch.equal(torch.cat([batch[name] for batch in labels]), part)


def test_token_labels(folder, reader):
    soft = make(folder, reader, grid=(2, 4))
    label = soft[0][1]  # blue to the left, yellow to the right
    assert label.shape == (2, 4, 3)
    torch.testing.assert_close(label.sum(dim=-1), torch.ones(2, 4))
    whole = make(folder, reader, v2.Compose([v2.RandomHorizontalFlip(p=1.0), PLAIN]), grid=(2, 4))[0][1]
    torch.testing.assert_close(whole, label.flip(1), atol=1e-5, rtol=0)


def test_temperature(folder, reader):
    assert make(folder, reader, temperature=5.0)[8][1].max() < make(folder, reader)[8][1].max()


def test_subsets(folder, reader):
    inner = Subset(Subset(folder, [20, 19, 3, 2, 1]), [4, 0])
    soft, whole = make(inner, reader), make(folder, reader)
    assert soft._images.ids == ["blue/1.png", "red/6.png"]
    for place, index in enumerate([1, 20]):
        torch.testing.assert_close(soft[place][1], whole[index][1], atol=1e-6, rtol=0)
    assert soft._images.path(1).endswith("red/6.png")


def test_any_data_set_with_ids(pictures, reader):
    records = Records(pictures)
    ids = [file.relative_to(pictures).as_posix() for file in records.files]
    for given in (ids, lambda index: ids[index], np.array(ids)):
        soft = SoftLabelDataset(records, reader, PLAIN, ids=given, class_map="same")
        np.testing.assert_allclose(soft[7][1].numpy(), reader.pool([ids[7]], [(0, 0, 1, 1)])[0], atol=1e-6)
    with pytest.raises(ImagesError, match="Records: expected an ImageFolder, or `ids`"):
        SoftLabelDataset(records, reader, PLAIN, class_map="same")
    with pytest.raises(ImagesError, match="ids: expected 21, one for each item of the data set, got 2"):
        SoftLabelDataset(records, reader, PLAIN, ids=ids[:2], class_map="same")
    with pytest.raises(ImagesError, match="does not say where its images' files are"):
        SoftLabelDataset(records, reader, PLAIN, ids=ids, class_map="same", check_images=True)
    with pytest.raises(ClassMatchError, match="class_map='same'"):
        SoftLabelDataset(records, reader, PLAIN, ids=ids)


def test_without_a_transform_images_stay_what_they_are(folder, reader):
    image, label = SoftLabelDataset(folder, reader, class_map=MAP)[8]
    assert isinstance(image, Image.Image)
    assert label.argmax() == 1


def test_classes_that_differ_are_refused(folder, reader):
    with pytest.raises(
        ClassMatchError, match="0 of them are among the store's class ids|3 of them are among the store's class names"
    ):
        SoftLabelDataset(folder, reader, PLAIN)
    soft = SoftLabelDataset(folder, reader, PLAIN, class_map="by_id")  # by name here: the folders are named as the classes
    assert soft.class_map.tolist() == COLUMNS


def test_transforms_of_the_data_set_itself_are_refused(pictures, reader):
    with pytest.raises(ImagesError, match="ImageFolder has a transform of its own"):
        make(ImageFolder(str(pictures), transform=PLAIN), reader)


def test_transforms_that_cannot_be_followed_are_refused(folder, reader):
    with pytest.raises(TransformError, match="RandAugment"):
        make(folder, reader, v2.Compose([v2.RandomCrop(8), v2.RandAugment()]))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"yields": "soft"}, "yields: expected 'labels' or 'maps', got 'soft'"),
        ({"missing": "skip"}, "missing: expected 'raise' or 'target', got 'skip'"),
        ({"yields": "maps", "grid": (2, 2)}, "go with yields='labels'"),
        ({"yields": "maps", "temperature": 2.0}, "go with yields='labels'"),
    ],
)
def test_options_that_are_none(folder, reader, options, words):
    with pytest.raises(OptionError, match=words):
        make(folder, reader, **options)


@pytest.fixture
def patchy(make_store, tmp_path: Path, pictures: Path) -> tuple[LabelMapReader, ImageFolder]:
    """A store in which one row failed and a shard is pending, and a folder with one image more."""
    images = Path(shutil.copytree(pictures, tmp_path / "images"))
    good = (images / "red" / "2.png").read_bytes()
    (images / "red" / "2.png").write_bytes(b"no picture")
    store = Path(make_store(images).store)
    (images / "red" / "2.png").write_bytes(good)
    shutil.copy(images / "red" / "3.png", images / "red" / "new.png")
    (store / "commits" / "c.0.0.0").unlink()
    return LabelMapReader(store), ImageFolder(str(images))


def test_missing_maps_are_told_at_once(patchy):
    reader, folder = patchy
    with pytest.raises(PendingRowError, match=r"6 of 22 images have no label map; missing='target'.*'blue/0.png'.*pending"):
        make(folder, reader)
    with pytest.raises(FailedRowError, match=r"1 of 1 images.*'red/2.png'.*cannot identify"):
        make(Subset(folder, [16]), reader)
    with pytest.raises(UnknownIdError, match=r"1 of 1 images.*no image id 'red/new.png'"):
        make(Subset(folder, [21]), reader)


@pytest.mark.parametrize("grid", [None, (2, 2)])
def test_missing_maps_become_the_target(patchy, grid):
    reader, folder = patchy
    soft = make(folder, reader, missing="target", grid=grid)
    labels = torch.stack([label for _, label in soft.__getitems__(list(range(22)))])
    for index in (0, 1, 2, 3, 16, 21):
        one_hot = torch.nn.functional.one_hot(torch.tensor(folder.targets[index]), 3).float()
        assert torch.equal(labels[index], one_hot.expand_as(labels[index]))
    assert (labels[4].flatten() < 1).all()


@pytest.mark.parametrize("temperature", [0.1, 1.0, 1000.0])
def test_maps_of_missing_images_pool_to_one_hot(patchy, temperature):
    reader, folder = patchy
    maps = make(folder, reader, CROP, missing="target", yields="maps")
    _, batch = default_collate(maps.__getitems__([0, 16, 21, 5]))
    for grid in (None, (3, 3)):
        columns = torch.from_numpy(maps.class_map)
        found = pool(
            batch,
            batch["box"],
            reader.num_classes,
            map_size=reader.map_size,
            grid=grid,
            temperature=temperature,
            class_map=columns,
        )
        for place, index in enumerate([0, 16, 21]):
            one_hot = torch.nn.functional.one_hot(torch.tensor(folder.targets[index]), 3).float()
            assert torch.equal(found[place], one_hot.expand_as(found[place]))


def test_targets_must_be_classes(patchy, pictures):
    reader, folder = patchy
    soft = SoftLabelDataset(folder, reader, PLAIN, class_map={**MAP}, missing="target")
    soft.dataset = [(Image.new("RGB", (8, 8)), 7)] * 22
    with pytest.raises(OptionError, match=r"expected targets in 0\.\.2, the data set gave 7"):
        soft[0]


def test_images_are_held_against_their_checksum(pictures, reader, tmp_path):
    images = Path(shutil.copytree(pictures, tmp_path / "images"))
    soft = make(ImageFolder(str(images)), reader, check_images=True)
    soft[3]
    shutil.copy(images / "blue" / "4.png", images / "blue" / "3.png")
    with pytest.raises(ImageMismatchError, match=r"blue/3.png: not the image that row 3 \('blue/3.png'\).*crc32") as caught:
        soft[3]
    assert isinstance(caught.value, ValueError)
    make(ImageFolder(str(images)), reader)[3]  # not asked for


def test_images_must_be_turned_as_the_annotator_saw_them(make_store, pictures, reader):
    upright = LabelMapReader(make_store(pictures, exif="apply").store)
    with pytest.raises(ImagesError, match="loader=labelstore.torch.load_upright"):
        make(ImageFolder(str(pictures)), upright)
    turned = ImageFolder(str(pictures), loader=load_upright)
    assert make(turned, upright)[8][1].argmax() == 1
    with pytest.raises(ImagesError, match="leave load_upright out"):
        make(turned, reader)


def test_load_upright(tmp_path):
    image = Image.new("RGB", (4, 2), "red")
    exif = image.getexif()
    exif[0x0112] = 6  # turned by a quarter
    image.save(tmp_path / "a.jpg", exif=exif)
    assert load_upright(tmp_path / "a.jpg").size == (2, 4)


def test_it_can_be_pickled(folder, reader):
    soft = pickle.loads(pickle.dumps(make(folder, reader)))
    torch.testing.assert_close(soft[4][1], make(folder, reader)[4][1], atol=1e-6, rtol=0)


def test_several_classes_of_one_and_files_of_maps(reader, folder, tmp_path):
    chosen = {"blue": ["blue", "cyan"], "green": "green", "red": ["red", "magenta", "yellow"]}
    (tmp_path / "map.json").write_text(json.dumps(chosen))
    for given in (chosen, str(tmp_path / "map.json")):
        soft = SoftLabelDataset(folder, reader, class_map=given)
        assert soft.class_map.shape == (3, 3)
        _, label = soft[0]
        expected = reader.pool([soft._images.ids[0]], [WHOLE_IMAGE], class_map=soft.class_map)[0]
        np.testing.assert_allclose(label.numpy(), expected, atol=1e-6)
        assert label.shape == (3,)
    maps = SoftLabelDataset(folder, reader, class_map=chosen, yields="maps")
    _, packed = maps[0]
    batch = {name: part[None] for name, part in packed.items()}
    columns = torch.from_numpy(maps.class_map)
    found = pool(batch, batch["box"], reader.num_classes, map_size=reader.map_size, class_map=columns)[0]
    torch.testing.assert_close(found, label, atol=1e-5, rtol=0)
    one_hot = {name: part[None] for name, part in maps._one_hot_map(2).items()}
    found = pool(one_hot, batch["box"], reader.num_classes, map_size=reader.map_size, class_map=columns)[0]
    torch.testing.assert_close(found, torch.tensor([0.0, 0.0, 1.0]), atol=1e-5, rtol=0)
