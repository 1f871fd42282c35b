"""What soft labels cost a DataLoader: epochs over real JPEGs with and without, in turns, and the public reference's way.

Each epoch decodes JPEGs of 500x375, crops (RandomResizedCrop 224, flip) and collates in two workers; only the labels differ:

  plain      integer targets, without labelstore
  labels     SoftLabelDataset, soft labels pooled in the workers
  maps       SoftLabelDataset, maps and boxes, pooled in the training process (labelstore.torch.pool)
  reference  torch.load of one file an image in the workers; scatter to [B, 1000, H, W] and roi_align in the training process

Measured are seconds and CPU seconds (all processes); ratios are to the plain epoch of the same pair.

python benchmarks/loader_epoch.py [--images 512] [--repeat 8] [--pairs 15] [--maps FILE.npz] [--json FILE]
"""

from __future__ import annotations

import resource
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from maps import CLASSES, load_maps, pack, write_store
from measuring import Line, arguments, cores, median_interval, report
from photos import make_photos
from PIL import Image
from reference import dense_pool
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from labelstore import LabelMapReader
from labelstore.torch import SoftLabelDataset, pool

BATCH, WORKERS, GOAL = 64, 2, 1.02
TRANSFORM = v2.Compose(
    [v2.RandomResizedCrop(224), v2.RandomHorizontalFlip(), v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True)]
)


class Photos(Dataset[Any]):
    """(image, target), transformed or not."""

    def __init__(self, files: list[Path], transform: Any = None) -> None:
        self.files, self.crop = files, transform

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        image = Image.open(self.files[index]).convert("RGB")
        return (image if self.crop is None else self.crop(image)), index % CLASSES


class Reference(Photos):
    """As the public loaders do it: the crop's place by `get_params`, the map from a file of its own."""

    def __init__(self, files: list[Path], maps: Path) -> None:
        super().__init__(files)
        self.maps = maps
        self.rest = v2.Compose([v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True)])

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        image, _ = super().__getitem__(index)
        width, height = image.size
        top, left, h, w = v2.RandomResizedCrop.make_params(v2.RandomResizedCrop(224), [image]).values()
        box = torch.tensor([left / width, top / height, (left + w) / width, (top + h) / height])
        image = v2.functional.resized_crop(image, top, left, h, w, [224, 224])
        if torch.rand(1) < 0.5:
            image = v2.functional.horizontal_flip(image)
        return self.rest(image), torch.load(self.maps / f"{self.files[index].stem}.pt", weights_only=True), box


def labels_of(name: str, batch: Any) -> Tensor:
    if name == "maps":
        return pool(batch[1], batch[1]["box"], CLASSES)
    return dense_pool(batch[1], batch[2]) if name == "reference" else batch[1]


def epoch(name: str, data: Dataset[Any], seed: int) -> tuple[float, float]:
    """Seconds and CPU seconds of one epoch, its workers' start and end included."""
    torch.manual_seed(seed)  # both of a pair see the same images in the same order
    start, used = time.perf_counter(), cpu_seconds()
    for batch in DataLoader(data, batch_size=BATCH, num_workers=WORKERS, shuffle=True):
        labels_of(name, batch)
    return time.perf_counter() - start, cpu_seconds() - used


def cpu_seconds() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def in_pairs(data: dict[str, Dataset[Any]], pairs: int) -> dict[str, list[tuple[float, float, float, float]]]:
    """By way: (its seconds, plain's, its CPU seconds, plain's) of each pair; who comes first changes."""
    found: dict[str, list[tuple[float, float, float, float]]] = {name: [] for name in data if name != "plain"}
    for name in data:
        epoch(name, data[name], 0)
    for number in range(pairs):
        for name, theirs in found.items():
            order = ("plain", name) if number % 2 else (name, "plain")
            took = {each: epoch(each, data[each], number) for each in order}
            theirs.append((took[name][0], took["plain"][0], took[name][1], took["plain"][1]))
    return found


def table(found: dict[str, Iterable[tuple[float, float, float, float]]]) -> list[Line]:
    lines = []
    for name, theirs in found.items():
        mine, plain, mine_cpu, plain_cpu = np.array(list(theirs)).T
        goal = GOAL if name == "labels" else None  # maps are for pooling on a GPU; here the training process does it
        lines.append(Line(f"{name}: seconds / plain", median_interval((mine / plain).tolist()), most=goal))
        lines.append(Line(f"{name}: CPU seconds / plain", median_interval((mine_cpu / plain_cpu).tolist()), most=goal))
    return lines


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--repeat", type=int, default=8, help="how often each image comes in an epoch")
    parser.add_argument("--pairs", type=int, default=15)
    parser.add_argument("--maps", type=Path, metavar="FILE.npz")
    given = parser.parse_args()
    torch.set_num_threads(1)  # the workers have the cores: threads that wait for work in the training process would spin there
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        files = sorted(make_photos(folder, given.images).iterdir())[: given.images]
        classes, scores = load_maps(given.maps)
        write_store(folder / "labels.zarr", pack(classes, scores).repeat(len(files)), [file.name for file in files])
        for index, file in enumerate(files):
            one = np.stack([scores[index % len(scores)], classes[index % len(classes)].astype(np.float32)])
            torch.save(torch.from_numpy(one), folder / f"{file.stem}.pt")
        reader, files = LabelMapReader(folder / "labels.zarr"), files * given.repeat
        ours = {"ids": [file.name for file in files], "class_map": "same"}
        data: dict[str, Dataset[Any]] = {
            "plain": Photos(files, TRANSFORM),
            "labels": SoftLabelDataset(Photos(files), reader, TRANSFORM, **ours),
            "maps": SoftLabelDataset(Photos(files), reader, TRANSFORM, **ours, yields="maps"),
            "reference": Reference(files, folder),
        }
        found = in_pairs(data, given.pairs)
    title = (
        f"An epoch of {len(files)} JPEGs, batches of {BATCH}, {WORKERS} workers on {cores()} cores, 1 torch thread each, "
        f"torch {torch.__version__}: medians of {given.pairs} pairs with their 95 % interval"
    )
    report(title, table(found), given.json, interval="95 % interval", pairs=found)


if __name__ == "__main__":
    main()
