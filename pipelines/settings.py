"""What a user may choose of a store: a new one's attributes, or held against those of one that exists."""

from __future__ import annotations

import datetime
from dataclasses import dataclass

from labelstore.encodings import find_encoding
from labelstore.errors import OptionError, StoreMismatchError
from labelstore.pipelines import defaults
from labelstore.pipelines.annotators.spec import SCORES, AnnotatorSpec, EnsembleInfo, EnsembleSpec
from labelstore.pipelines.choice import EncodingChoice, baseline, check_choice, spectral_shape
from labelstore.pipelines.class_file import read_classes
from labelstore.pipelines.plan import shard_size
from labelstore.pipelines.records import (
    absolute,
    annotator_record,
    asked_and_recorded,
    asked_and_recorded_scores,
    from_the_root,
    weight_files,
)
from labelstore.pipelines.sources import Listing
from labelstore.pipelines.versions import recorded_versions
from labelstore.pixels import ReadRules
from labelstore.schema import StoreInfo


@dataclass(frozen=True)
class Settings:
    """The choices that make a store what it is. None: as the store has it, else the default."""

    model: str | tuple[str, ...] | None = None
    image_size: int | None = None
    weights: tuple[str, ...] = ()
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None
    interpolation: str | None = None
    scores: str | None = None
    flip: bool | None = None
    precision: str | None = None
    decoder: str | None = None
    classes: str | None = None
    encoding: str | None = None
    classes_per_image: int | None = None
    patterns: int | None = None
    frequencies: int | None = None
    tail_bits: int | None = None
    top_k: int | None = None
    baseline: str | None = None
    exif: str | None = None
    grey16: str | None = None
    shard_size: int | None = None

    @property
    def models(self) -> tuple[str, ...]:
        """The annotators of a new store, by the names that the user gave them."""
        given = (self.model,) if isinstance(self.model, str) else self.model
        return given or (defaults.MODEL,)

    def ensemble_spec(self, compiled: bool = False) -> EnsembleSpec:
        """Return the annotators of a new store.

        Raises
        ------
        OptionError
            Files of weights for some of the models only, or a mean, std or interpolation for several.
        """
        models, weights = self.models, self.weights or (None,) * len(self.models)
        if len(weights) != len(models):
            raise OptionError(f"--weights: expected one file for each --model, got {len(weights)} for {len(models)}")
        if self.scores not in (None, *SCORES):
            raise OptionError(f"--scores {self.scores}: expected {' or '.join(SCORES)}")
        if len(models) > 1 and (self.mean or self.std or self.interpolation):
            raise OptionError("--mean, --std, --interpolation: for one --model; those of an ensemble have their own")
        members = tuple(
            AnnotatorSpec(
                from_the_root(model),
                self.image_size,
                weights=None if file is None else absolute(file),
                mean=self.mean,
                std=self.std,
                interpolation=self.interpolation,
                scores=self.scores,
            )
            for model, file in zip(models, weights, strict=True)
        )
        return EnsembleSpec(members, bool(self.flip), self.precision, compiled)

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

    def chosen_top_k(self, num_classes: int) -> int:
        """Return K of a new store."""
        return self.top_k or min(defaults.TOP_K, num_classes)

    def chosen_decoder(self) -> str:
        """Return what decodes the JPEG files of a new store."""
        return self.decoder or defaults.DECODER

    def chosen_rules(self, usual_exif: str = defaults.EXIF) -> ReadRules:
        """Return how a new store's images become pixels; ``usual_exif`` is the EXIF rule of the images' source.

        Raises
        ------
        OptionError
            Photographs are to be turned upright by a decoder that cannot.
        """
        exif = self.exif or usual_exif
        if exif == "apply" and self.decoder == "nvjpeg":
            raise OptionError("--decoder nvjpeg: turns no photographs upright: --exif ignore, or --decoder pillow")
        return ReadRules(exif, self.grey16 or defaults.GREY16)


def require_decoder(decoder: str, device: str) -> None:
    """Refuse to decode where images cannot be decoded so.

    Raises
    ------
    OptionError
    """
    if decoder == "nvjpeg" and device == "cpu":
        raise OptionError("--decoder nvjpeg needs --device cuda, this run is on the CPU; use --decoder pillow")


def new_store_info(settings: Settings, listing: Listing, found: EnsembleInfo, id_bytes: int, rules: ReadRules) -> StoreInfo:
    """Return what a new store says of itself.

    Raises
    ------
    OptionError
        An encoding that this annotator's maps cannot have, or a file of classes that are not its.
    """
    annotator, encoding = found.combined, settings.encoding_choice()
    names, ids = annotator.class_names, annotator.class_ids
    if settings.classes is not None:
        names, ids = read_classes(settings.classes, annotator.num_classes)
    return StoreInfo(
        num_rows=len(listing.ids),
        num_classes=annotator.num_classes,
        top_k=settings.chosen_top_k(annotator.num_classes),
        map_size=annotator.map_size,
        shard_size=settings.shard_size or shard_size(len(listing.ids)),
        id_bytes=id_bytes,
        annotator=annotator_record(settings.models, settings.ensemble_spec(), found),
        encoding=encoding.name,
        spectral=spectral_shape(encoding, annotator.num_classes, annotator.map_size),
        baseline=baseline(encoding),
        exif=rules.exif,
        grey16=rules.grey16,
        class_names=names,
        class_ids=ids,
        target_names=listing.target_names,
        images_root=listing.root,
        decoder=settings.chosen_decoder(),
        versions=dict(recorded_versions()),
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        recipe=find_encoding(encoding.name, "new store").recipe,
        image_sizes=True,
    )


def require_same_settings(location: str, settings: Settings, info: StoreInfo) -> None:
    """Refuse to go on with a store with other settings than it was begun with.

    Raises
    ------
    StoreMismatchError
        Names the options, and what the store has.
    """
    record = info.annotator
    pairs = {
        "--model": asked_and_recorded(settings.models if settings.model else None, record),
        "--weights": (tuple(map(absolute, settings.weights)) or None, weight_files(record)),
        "--image-size": (settings.image_size, record.input_size),
        "--mean": (settings.mean, record.mean),
        "--std": (settings.std, record.std),
        "--interpolation": (settings.interpolation, record.interpolation),
        "--scores": asked_and_recorded_scores(settings.scores, record),
        "--flip": (settings.flip, record.flip),
        "--precision": (settings.precision, record.precision),
        "--decoder": (settings.decoder, info.decoder),
        "--encoding": (settings.encoding, info.encoding),
        "--classes-per-image": (settings.classes_per_image, None if info.spectral is None else info.spectral.classes),
        "--patterns": (settings.patterns, None if info.spectral is None else info.spectral.patterns),
        "--frequencies": (settings.frequencies, None if info.spectral is None else max(info.spectral.frequencies)),
        "--tail-bits": (settings.tail_bits, None if info.spectral is None else info.spectral.tail_bits),
        "--top-k": (settings.top_k, info.top_k),
        "--baseline": (settings.baseline, info.baseline),
        "--exif": (settings.exif, info.exif),
        "--grey16": (settings.grey16, info.grey16),
        "--shard-size": (settings.shard_size, info.shard_size),
    }
    if settings.classes is not None:
        names, ids = read_classes(settings.classes, info.num_classes)
        same = names == info.class_names and (ids is None or ids == info.class_ids)
        pairs["--classes"] = (settings.classes, settings.classes if same else "others")
    differ = [
        f"{option} {_in_words(given)} (the store has {_in_words(has)})"
        for option, (given, has) in pairs.items()
        if given not in (None, has)
    ]
    if differ:
        raise StoreMismatchError(
            f"{location}: this store was made with other settings: {', '.join(differ)}. "
            "Leave these options out to go on with it, or choose another --store"
        )


def _in_words(value: object) -> str:
    if value is None or isinstance(value, bool):
        return {None: "none", True: "yes", False: "no"}[value]
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
