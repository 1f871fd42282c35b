"""What a user may choose of a store, held against what a store already is."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

from labelstore.encodings import find_encoding
from labelstore.errors import DamagedError, StoreMismatchError, StoreNotFoundError, UnfinishedStoreError
from labelstore.ids import ImageIds
from labelstore.pipelines import defaults
from labelstore.pipelines.annotators.spec import AnnotatorInfo, AnnotatorSpec
from labelstore.pipelines.choice import EncodingChoice, baseline, check_choice, spectral_shape
from labelstore.pipelines.images import ImageListing
from labelstore.pipelines.plan import pending_shards, shard_size
from labelstore.schema import AnnotatorRecord, StoreInfo, index_arrays
from labelstore.storage import Source, open_source

_RECORDED_VERSIONS = ("labelstore", "torch", "torchvision", "timm", "pillow", "numpy", "zarr", "numcodecs")


@dataclass(frozen=True)
class Settings:
    """The choices that make a store what it is. None: as the store has it, else the default."""

    model: str | None = None
    image_size: int | None = None
    encoding: str | None = None
    classes_per_image: int | None = None
    patterns: int | None = None
    frequencies: int | None = None
    tail_bits: int | None = None
    top_k: int | None = None
    baseline: str | None = None
    exif: str | None = None
    shard_size: int | None = None

    def annotator_spec(self) -> AnnotatorSpec:
        """Return the annotator of a new store."""
        return AnnotatorSpec(self.model or defaults.MODEL, self.image_size)

    def encoding_choice(self) -> EncodingChoice:
        """Return the encoding of a new store.

        Raises
        ------
        OptionError
            Choices that do not go together.
        """
        chosen = self.classes_per_image, self.patterns, self.frequencies, self.tail_bits
        choice = EncodingChoice(self.encoding, *chosen, self.baseline)
        check_choice(choice)
        return choice

    def chosen_top_k(self) -> int:
        """Return K of a new store."""
        return self.top_k or defaults.TOP_K

    def chosen_exif(self) -> str:
        """Return the EXIF rule of a new store."""
        return self.exif or defaults.EXIF


@dataclass(frozen=True)
class ExistingStore:
    """A store that fits the settings and images, and its shards without a matching commit."""

    info: StoreInfo
    pending: list[int]


def existing_store(location: str, settings: Settings, listing: ImageListing) -> ExistingStore | None:
    """Open the store if there is one, and make sure that it is this one.

    Raises
    ------
    StoreMismatchError
        It was made with other settings (which is said) or for other images.
    FormatError
        What is there is no store.
    """
    try:
        source, info = open_source(location)
    except (StoreNotFoundError, UnfinishedStoreError):
        return None
    _require_same_settings(location, settings, info)
    _require_same_ids(location, listing, source, info)
    committed = (shard for shard in range(info.num_shards) if _is_committed(source, shard))
    return ExistingStore(info, pending_shards(info.num_shards, committed))


def new_store_info(settings: Settings, listing: ImageListing, annotator: AnnotatorInfo, id_bytes: int) -> StoreInfo:
    """Return what a new store says of itself.

    Raises
    ------
    OptionError
        An encoding that this annotator's maps cannot have.
    """
    how, encoding = annotator.preprocessing, settings.encoding_choice()
    return StoreInfo(
        num_rows=len(listing.ids),
        num_classes=annotator.num_classes,
        top_k=settings.chosen_top_k(),
        map_size=annotator.map_size,
        shard_size=settings.shard_size or shard_size(len(listing.ids)),
        id_bytes=id_bytes,
        annotator=AnnotatorRecord(
            name=annotator.name,
            weights_sha256=annotator.weights_sha256,
            input_size=how.input_size,
            mean=how.mean,
            std=how.std,
            interpolation=how.interpolation,
            requested=settings.annotator_spec().model,
        ),
        encoding=encoding.name,
        spectral=spectral_shape(encoding, annotator.num_classes, annotator.map_size),
        baseline=baseline(encoding),
        exif=settings.chosen_exif(),
        class_names=annotator.class_names,
        class_ids=annotator.class_ids,
        target_names=listing.target_names,
        images_root=str(listing.root.absolute()),
        versions=_versions(),
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        recipe=find_encoding(encoding.name, "new store").recipe,
    )


def recorded_annotator(info: StoreInfo) -> AnnotatorSpec:
    """Return the annotator that a store was begun with."""
    return AnnotatorSpec(info.annotator.name, info.annotator.input_size)


def _require_same_settings(location: str, settings: Settings, info: StoreInfo) -> None:
    known = info.annotator.name, info.annotator.requested  # timm:resnet18.a1_in1k may have been asked for as resnet18
    pairs = {
        "--model": (settings.model, settings.model if settings.model in known else info.annotator.name),
        "--image-size": (settings.image_size, info.annotator.input_size),
        "--encoding": (settings.encoding, info.encoding),
        "--classes-per-image": (settings.classes_per_image, None if info.spectral is None else info.spectral.classes),
        "--patterns": (settings.patterns, None if info.spectral is None else info.spectral.patterns),
        "--frequencies": (settings.frequencies, None if info.spectral is None else max(info.spectral.frequencies)),
        "--tail-bits": (settings.tail_bits, None if info.spectral is None else info.spectral.tail_bits),
        "--top-k": (settings.top_k, info.top_k),
        "--baseline": (settings.baseline, info.baseline),
        "--exif": (settings.exif, info.exif),
        "--shard-size": (settings.shard_size, info.shard_size),
    }
    differ = [
        f"{option} {given} (the store has {'none' if has is None else has})"
        for option, (given, has) in pairs.items()
        if given not in (None, has)
    ]
    if differ:
        raise StoreMismatchError(
            f"{location}: this store was made with other settings: {', '.join(differ)}. "
            "Leave these options out to go on with it, or choose another --store"
        )


def _require_same_ids(location: str, listing: ImageListing, source: Source, info: StoreInfo) -> None:
    stored = ImageIds(source.index_array(index_arrays(info)[0]), location)
    if len(stored) == len(listing.ids) and all(ours == theirs for ours, theirs in zip(listing.ids, stored, strict=True)):
        return
    ours, theirs = set(listing.ids), set(stored)
    new, gone = sorted(ours - theirs), sorted(theirs - ours)
    raise StoreMismatchError(
        f"{location}: expected the {len(stored)} images that the store was made for, found {len(ours)} below {listing.root}: "
        f"{_few(new)} new, {_few(gone)} gone. Name the same folder, or choose another --store for these images"
    )


def _is_committed(source: Source, shard: int) -> bool:
    try:
        return source.is_committed(shard)
    except DamagedError:  # a commit that its files do not match counts for nothing
        return False


def _few(ids: list[str]) -> str:
    return f"{len(ids)} ({', '.join(ids[:3])}{', ...' if len(ids) > 3 else ''})" if ids else "0"


def _versions() -> dict[str, str]:
    found = {}
    for name in _RECORDED_VERSIONS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
