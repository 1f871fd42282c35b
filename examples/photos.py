"""A folder of photographs as a plain data set: what the examples start from. It knows nothing of labelstore."""

from __future__ import annotations

from pathlib import Path

from PIL import Image
from torch.utils.data import Dataset

SUFFIXES = {".jpg", ".jpeg", ".png"}


class Photos(Dataset[tuple[Image.Image, int]]):
    """(image, target) of all photographs below a folder; nobody has named their classes, so the target is -1."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.ids = sorted(file.relative_to(root).as_posix() for file in root.rglob("*") if file.suffix.lower() in SUFFIXES)

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        return Image.open(self.root / self.ids[index]).convert("RGB"), -1
