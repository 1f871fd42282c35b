"""`import relabel` and `import tokenlabeling`: folders of one file a map into a store."""

from __future__ import annotations

from dataclasses import dataclass, replace

from labelstore.errors import OptionError
from labelstore.ids import pack_ids
from labelstore.pipelines import defaults
from labelstore.pipelines.class_file import read_classes
from labelstore.pipelines.exchange.axes import AxesCheck, find_axes
from labelstore.pipelines.exchange.places import whole_place
from labelstore.pipelines.exchange.pt_folder import (
    PtFolder,
    PtImages,
    by_extension,
    by_images,
    first_shape,
    listed_unit,
)
from labelstore.pipelines.exchange.transfer import Transfer, transfer
from labelstore.pipelines.new_store import NOT_KNOWN, MapsRecord, info_of
from labelstore.pipelines.observer import Observer
from labelstore.pipelines.resources import Resources
from labelstore.pipelines.scores import settle_scores
from labelstore.pipelines.sources import FilePlace
from labelstore.pipelines.sources.listing import folder_targets
from labelstore.pipelines.summary import Summary
from labelstore.records import AXES, ImportRecord

_HALF = 2048
"""The class numbers up to which float16 is exact."""


@dataclass(frozen=True)
class PtImport:
    """What a user says of such a folder.

    Parameters
    ----------
    kind
        ``relabel`` or ``tokenlabeling``.
    axes
        How the last two axes lie: ``yx`` or ``xy``; None: look at photographs, see ``check``.
    check
        What to look with.
    images
        Where the images are, which give the ids; None: they have the files' names, with this ``extension``.
    classes
        A file with the classes' names.
    scores
        ``logits`` or ``probabilities``; None: find out, and refuse what is no logits.
    """

    folder: str
    kind: str = "relabel"
    axes: str | None = None
    check: AxesCheck | None = None
    images: str | None = None
    extension: str = ".JPEG"
    num_classes: int = 1000
    classes: str | None = None
    annotator: str = NOT_KNOWN
    exif: str = defaults.EXIF
    shard_size: int | None = None
    skip_bad: bool = False
    scores: str | None = None


def import_pt(asked: PtImport, store: str, resources: Resources, observer: Observer) -> Summary:
    """Make a store of a folder's maps, or go on with it.

    Raises
    ------
    OptionError
        Choices that do not go together; axes that photographs do not tell.
    MapsError
        A file that has no map; names it.
    LabelStoreError
        As `transfer`.
    """
    _check(asked)
    names, class_ids = (None, None) if asked.classes is None else read_classes(asked.classes, asked.num_classes)
    observer.phase("looking for maps")
    root = whole_place(asked.folder)
    images = _list(asked, root, observer)
    folder = PtFolder(root, asked.axes or AXES[0], asked.skip_bad)
    top_k, height, width = first_shape(folder, images)
    scores = settle_scores(asked.scores, listed_unit(folder, images, asked.num_classes), f"{root}: scores", observer)
    folder = replace(folder, scores=scores)
    if asked.check is not None:
        folder = replace(folder, axes=find_axes(asked.check, folder, asked.num_classes, observer))
        top_k, height, width = first_shape(folder, images)
    targets, target_names = folder_targets(images.ids)
    record = MapsRecord(
        asked.num_classes,
        (height, width),
        top_k,
        imported=ImportRecord(asked.kind, root, folder.axes, scores=scores),
        annotator=asked.annotator,
        class_names=names,
        class_ids=class_ids,
        target_names=target_names,
        images_root=None if asked.images is None else whole_place(asked.images),
        exif=asked.exif,
    )
    ids = pack_ids(images.ids)
    info = info_of(record, len(images.ids), ids.shape[1], asked.shard_size)

    def part(shard: int) -> tuple[str, ...]:
        rows = info.shard_rows(shard)
        return tuple(images.files[rows.start : rows.stop])

    sample = [FilePlace(f"{root}/{file}") for file in images.files[0:1] if file]
    return transfer(Transfer(folder, info, ids, targets, part, sample), store, resources, observer)


def _list(asked: PtImport, root: str, observer: Observer) -> PtImages:
    if asked.images is not None:
        return by_images(root, asked.images, asked.skip_bad, observer)
    return by_extension(root, asked.extension)


def _check(asked: PtImport) -> None:
    if asked.kind == "relabel" and (asked.axes is None) == (asked.check is None):
        raise OptionError(
            "expected --axes yx, --axes xy or --check IMAGES, one of them: whether rows or columns of the image come first "
            "cannot be told from square maps (docs/formats.md)"
        )
    if asked.num_classes == 1:
        raise OptionError("--num-classes 1: expected at least 2 classes: the probability of a single one is always 1")
    if asked.kind == "tokenlabeling" and asked.num_classes > _HALF:
        raise OptionError(
            f"--num-classes {asked.num_classes}: TokenLabeling's files hold class numbers in float16, which is exact up to "
            f"{_HALF:,} only"
        )
    if not asked.extension.startswith(".") and asked.extension:
        raise OptionError(f"--ext {asked.extension}: expected an extension with its dot, such as .JPEG")
