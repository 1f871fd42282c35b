"""Label maps as one file an image: a tensor ``[2, K, H, W]``, scores and class numbers, in ``<folder>/<name>.pt``.

So the authors of ReLabel (Yun et al., CVPR 2021) publish theirs, and TokenLabeling (Jiang et al., NeurIPS 2021) its own.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from labelstore.credentials import safe_id
from labelstore.errors import ImagesError, MapsError
from labelstore.pipelines.exchange.exporting import require_whole
from labelstore.pipelines.exchange.listed import Found, as_logits, put_found
from labelstore.pipelines.exchange.pt_file import PtReader
from labelstore.pipelines.observer import Observer
from labelstore.pipelines.probe import spread
from labelstore.pipelines.shard_rows import ShardRows
from labelstore.pipelines.sources import ImagesSpec, list_images
from labelstore.pipelines.sources.folder import walk_files
from labelstore.pipelines.sources.listing import id_problem
from labelstore.records import ScoresRecord
from labelstore.units import ListedUnit

SUFFIX = ".pt"
_AT_ONCE, _SHOWN, _MOST_TRIED, _LOOKED_AT = 256, 3, 100, 64
NO_FILE = ""
"""In the place of a file, where an image has none."""


@dataclass(frozen=True)
class PtFolder:
    """A folder of such files; ``axes`` says how the last two axes of their tensors lie: ``yx``, or ``xy``.

    A `MapsSource`: a part are the files of a shard's rows, as paths below the root.
    """

    root: str
    axes: str
    skip_bad: bool = False
    scores: ScoresRecord | None = None

    def fill(self, rows: ShardRows, part: Sequence[str]) -> Iterator[int]:
        """See `MapsSource.fill`."""
        height, width = rows.info.map_size
        for start in range(0, len(part), _AT_ONCE):
            files = part[start : start + _AT_ONCE]
            found = [self.read(file, (rows.info.top_k, height, width), rows.info.num_classes) for file in files]
            put_found(rows, start, found, self.skip_bad)
            yield len(files)

    def read(self, file: str, shape: tuple[int, int, int], num_classes: int) -> Found:
        """Read a file's map, right way round; what is wrong with it is told, not raised."""
        if file == NO_FILE:
            return Found(self.root, problem="no file for this image")
        where = f"{self.root}/{file}"
        try:
            tensor = self.tensor(file)
        except MapsError as error:
            return Found(where, problem=str(error))
        if tensor.shape[1:] != shape:
            expected = ", ".join(map(str, (2, *shape)))
            return Found(where, problem=f"expected [{expected}] as the first file has, got {list(tensor.shape)}")
        problem = exactness_problem(tensor.dtype, num_classes)
        return as_logits(Found(where, tensor[1], tensor[0], problem), self.scores, num_classes)

    def tensor(self, file: str) -> NDArray[np.floating[Any]]:
        """Return a file's tensor ``[2, K, H, W]``, right way round.

        Raises
        ------
        MapsError
            There is none.
        """
        tensor = _reader().read(f"{self.root}/{file}")
        if tensor.ndim != 4 or tensor.shape[0] != 2 or not all(tensor.shape) or tensor.dtype.kind != "f":
            raise MapsError(f"expected numbers [2, K, H, W], scores and classes, got {tensor.dtype} {list(tensor.shape)}")
        return tensor.swapaxes(2, 3) if self.axes == "xy" else tensor


@dataclass(frozen=True)
class PtImages:
    """Images and the files of their maps, `NO_FILE` where there is none; both as paths below a root, in order of the ids."""

    ids: Sequence[str]
    files: Sequence[str] | FilesById


@dataclass(frozen=True)
class FilesById:
    """The files of ids that are those files' names with another extension: a list of them that takes no memory."""

    ids: Sequence[str]
    extension: str

    def __getitem__(self, rows: slice) -> tuple[str, ...]:
        cut = len(self.extension)
        return tuple(image_id[:-cut] + SUFFIX if cut else image_id + SUFFIX for image_id in self.ids[rows])


@lru_cache(maxsize=1)
def _reader() -> PtReader:
    return PtReader()


def exactness_problem(dtype: np.dtype[Any], num_classes: int) -> str:
    """Say why class numbers in a dtype are not to be trusted for a data set of so many classes; '' if they are."""
    exact = int(2 / np.finfo(dtype).eps)
    if num_classes <= exact:
        return ""
    return f"class numbers in {dtype} are exact up to {exact:,} only, too few for {num_classes:,} classes"


def by_extension(root: str, extension: str) -> PtImages:
    """List a folder's maps; their images have the same names with another extension.

    Raises
    ------
    ImagesError
        No such folder, or no map in it; a name that can be no image id.
    """
    ids = []
    for file in _pt_files(root):
        image_id = file[: -len(SUFFIX)] + extension
        problem = id_problem(image_id)
        if problem:
            raise ImagesError(f"{root}: image id {safe_id(image_id)!r}: {problem}")
        ids.append(image_id)
    ids.sort(key=str.encode)
    return PtImages(ids, FilesById(ids, extension))


def by_images(root: str, images: str, skip_bad: bool, observer: Observer) -> PtImages:
    """List a folder's maps for the images of a source: for the names see `file_names`.

    Parameters
    ----------
    skip_bad
        Whether images without a map are rows that fail; else they are an error.

    Raises
    ------
    ImagesError
        As `by_extension`; or images without a map.
    """
    have = set(_pt_files(root))
    ids = list_images(ImagesSpec((images,))).ids
    files = [next((name for name in file_names(image_id) if name in have), NO_FILE) for image_id in ids]
    lacking = [image_id for image_id, file in zip(ids, files, strict=True) if file == NO_FILE]
    if len(lacking) == len(ids) or (lacking and not skip_bad):
        raise ImagesError(
            f"{root}: {len(lacking)} of {len(ids)} images below {images} have no map: expected {file_names(lacking[0])[0]} for "
            f"{_few(lacking)}. With --skip-bad their rows are marked as failed"
        )
    more = have.difference(files)
    if more:
        observer.warning(f"{len(more)} files have no image below {images}, and are left out: {_few(sorted(more))}")
    return PtImages(ids, files)


def file_names(image_id: str) -> tuple[str, str]:
    """Return where an image's map may be: in the file of its own name, else where the reference's loader looks for it."""
    folder, slash, name = image_id.rpartition("/")
    return folder + slash + (name.rpartition(".")[0] or name) + SUFFIX, reference_name(image_id)


def reference_name(image_id: str) -> str:
    """Return the file in which the reference's loader looks for an image's map: below the image's own folder alone, and up to
    the first dot.

    Source: ``ImageFolderWithCoordsAndLabelMap`` of github.com/naver-ai/relabel_imagenet.
    """
    return "/".join(image_id.split("/")[-2:]).split(".")[0] + SUFFIX


def first_shape(folder: PtFolder, images: PtImages) -> tuple[int, int, int]:
    """Return K, H and W of the first file that has a map.

    Raises
    ------
    MapsError
        None of the first files has one.
    """
    problems = []
    for file in filter(None, images.files[0:_MOST_TRIED]):
        try:
            found = folder.tensor(file)
        except MapsError as error:
            problems.append(f"{folder.root}/{file}: {error}")
            if not folder.skip_bad:
                break
            continue
        return found.shape[1], found.shape[2], found.shape[3]
    raise MapsError(problems[0] if problems else f"{folder.root}: expected label maps, found none")


def listed_unit(folder: PtFolder, images: PtImages, num_classes: int) -> ListedUnit:
    """Look at the scores of files from all over the folder; what is wrong with one of them is said in its turn."""
    test = ListedUnit(num_classes)
    for row in spread(len(images.ids), _LOOKED_AT):
        file = images.files[row : row + 1][0]
        with contextlib.suppress(MapsError):
            if file != NO_FILE:
                test.add(folder.tensor(file)[None, 0])
    return test


def _pt_files(root: str) -> Iterator[str]:
    found = False
    require_whole(root)
    for file in walk_files(Path(root), "a folder of label maps, <folder>/<name>.pt"):
        if file.endswith(SUFFIX):
            found = True
            yield file
    if not found:
        raise ImagesError(f"{root}: expected files *{SUFFIX} below this folder, found none")


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
