"""What is made before any student is trained: scenes on disk, a teacher, and the stores of its label maps."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn

from effect import networks
from effect.arms import Material, single
from effect.learning import Schedule, load_scenes, predict, train
from effect.networks import Network
from effect.objects import STAMPS, class_names, load_objects
from effect.scenes import SIZE, read_present, write_scenes

SEVERAL, ONE = (2, 3, 4), (1,)


@dataclass(frozen=True)
class Study:
    """One kind of scenes, and how much of everything. Numbers of scenes, and epochs."""

    kind: str
    images: int
    schedule: Schedule
    teacher_images: int
    teacher_schedule: Schedule
    teacher_rate: float
    tests: int = 2000
    counts: tuple[int, ...] = (1, 2, 3)
    """Objects in a scene of the students'; in one of the teacher's: two to four."""
    rates: tuple[float, ...] = field(default=(0.005, 0.01, 0.02, 0.04), repr=False)
    """Learning rates that are tried for every arm; others do not make it another study."""
    student: str = "small"
    scale: int = 1
    """Of all pictures: 2 has scenes of 128 px and crops of 64."""
    device: str = "cpu"

    @property
    def classes(self) -> tuple[str, ...]:
        return class_names(self.kind)


@dataclass(frozen=True)
class Workshop:
    """A folder where a study's material lies; what is there already is not made again."""

    root: Path
    study: Study
    stamps: Path = STAMPS

    @property
    def crop(self) -> int:
        """Pixels a side of a training crop."""
        return networks.CROP * self.study.scale

    @property
    def test_side(self) -> int:
        """Pixels a side of a whole scene when it is judged, or annotated."""
        return networks.TEST * self.study.scale

    def scenes(self, part: str, count: int, counts: tuple[int, ...], seed: int = 0) -> Path:
        """A folder of scenes, made of this part's objects."""
        folder = self.root / f"{part}-{count}-{'or'.join(map(str, counts))}"
        if not folder.exists():
            partial = folder.with_name(folder.name + ".partial")
            objects = load_objects(self.study.kind, part, self.stamps)
            write_scenes(partial, objects, count, counts, seed, SIZE * self.study.scale).rename(folder)
        return folder

    def images(self, counts: tuple[int, ...] = ()) -> Path:
        """The students' scenes, of so many objects each if told, else of the study's."""
        return self.scenes("train", self.study.images, counts or self.study.counts)

    def held_out(self, part: str) -> tuple[Path, Path]:
        """Of ``validation`` or ``test``: scenes of one object, and of several."""
        return self.scenes(part, self.study.tests, ONE), self.scenes(part, self.study.tests, SEVERAL)

    def teacher_file(self, share: float = 1.0) -> Path:
        """Weights of the teacher: trained like a single-label student, on scenes and objects of its own.

        ``share`` of its images makes a worse one, at the same number of epochs.
        """
        file = self.root / f"teacher-{share:g}.pth"
        if not file.exists():
            scenes = self.scenes("teacher", round(self.study.teacher_images * share), SEVERAL)
            torch.manual_seed(0)
            model = networks.teacher(self.study.classes).to(self.study.device)
            data, labels = single(Material(scenes, {}, model, self.crop))
            train(model, data, labels, self.study.teacher_rate, self.study.teacher_schedule, seed=0)
            torch.save(model.state_dict(), file)
        return file

    def teacher(self, share: float = 1.0) -> Network:
        model = networks.teacher(self.study.classes)
        model.load_state_dict(torch.load(self.teacher_file(share), weights_only=True))
        return model.eval().to(self.study.device)

    def store(self, name: str, options: Iterable[str] = (), share: float = 1.0, counts: tuple[int, ...] = ()) -> Path:
        """A store of label maps of the students' scenes, by `labelstore annotate`."""
        images = self.images(counts)
        store = self.root / f"{images.name}, {name}.zarr"
        if not store.exists():
            size = ("--image-size", str(self.test_side), "--device", self.study.device)
            annotate(images, store, self.study.kind, self.teacher_file(share), (*options, *size))
        return store

    def material(self, store: str, counts: tuple[int, ...] = ()) -> Material:
        """What the main arms are made of: images, the store that `annotate` makes if nothing is said, the teacher."""
        return Material(self.images(counts), {store: self.store(store, counts=counts)}, self.teacher(), self.crop)


def annotate(images: Path, store: Path, kind: str, weights: Path, options: Iterable[str]) -> None:
    """Run `labelstore annotate` as a user would, with the annotator of effect/teacher.py."""
    start = "from labelstore.cli.main import main; main()"
    command = [sys.executable, "-c", start, "annotate", images, "--store", store, "--workers", "0", *options]
    command += ["--model", f"effect.teacher:{kind}", "--weights", weights]
    here = str(Path(__file__).parent.parent)
    path = os.pathsep.join(filter(None, (here, os.environ.get("PYTHONPATH"))))
    done = subprocess.run(
        [str(part) for part in command], env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"annotate ended with {done.returncode}: {done.stderr or done.stdout}")


def accuracy(model: nn.Module, scenes: Path, classes: tuple[str, ...], side: int = networks.TEST) -> float:
    """Percent of scenes whose best class is one that they show."""
    images, _, ids = load_scenes(scenes, side)
    shown = read_present(scenes)
    right = [classes[said] in shown[key] for said, key in zip(predict(model, images).tolist(), ids, strict=True)]
    return 100 * sum(right) / len(right)
