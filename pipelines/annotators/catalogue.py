"""What annotators are usable here by name, and how fine their maps are."""

from __future__ import annotations

import contextlib
import difflib
import importlib.metadata
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Any

from labelstore.errors import AnnotatorError, MissingExtraError
from labelstore.pipelines.annotators import builtin, timm_models, torchvision_models
from labelstore.pipelines.annotators.network import Listed, Network, in_short
from labelstore.pipelines.annotators.probing import MAX_CLASSES
from labelstore.pipelines.annotators.spec import AnnotatorSpec
from labelstore.pipelines.annotators.weightless import build_weightless, find_map_size
from labelstore.pipelines.user_cache import cache_folder

_WILDCARDS = "*?["


@dataclass(frozen=True)
class MapFound:
    """An annotator's map size at its own input size, or why there is none.

    ``refused``: it has no per-location head; a reason without it: this could not be found out.
    """

    size: tuple[int, int] | None
    refused: bool = False
    reason: str | None = None


def list_annotators() -> tuple[list[Listed], list[str]]:
    """All pretrained classifiers that can be named and stored here, and what must be installed for more."""
    models: list[Listed] = []
    missing: list[str] = []
    for source in (builtin, timm_models, torchvision_models):
        try:
            models += [model for model in source.listed() if model.num_classes <= MAX_CLASSES]
        except MissingExtraError as error:
            missing.append(str(error))
    return models, missing


def matching(models: Iterable[Listed], pattern: str) -> list[Listed]:
    """Those whose names fit a glob, or contain `pattern` if it has no wildcards; upper and lower case are one.

    Raises
    ------
    AnnotatorError
        None does; names near ones.
    """
    models, wanted = list(models), pattern.casefold()
    if any(character in wanted for character in _WILDCARDS):
        found = [model for model in models if any(fnmatchcase(name, wanted) for name in _spellings(model.name))]
    else:
        found = [model for model in models if wanted in model.name.casefold()]
    if not found:
        near = _near(wanted, models)
        hint = f" Did you mean {', '.join(near)}?" if near else ""
        raise AnnotatorError(
            f"no annotator fits {pattern!r}.{hint} Models without a classifier, or of more than {MAX_CLASSES:,} classes, are "
            "not listed"
        )
    return found


def _spellings(name: str) -> tuple[str, str]:
    """With its source, and without."""
    full = name.casefold()
    return full, full.rpartition(":")[2]


def _near(wanted: str, models: list[Listed]) -> list[str]:
    """Architectures (no tags) with names like it."""
    stem = "".join(character for character in wanted.rpartition(":")[2] if character not in _WILDCARDS)
    known = dict.fromkeys(_spellings(model.name)[1].partition(".")[0] for model in models)
    return difflib.get_close_matches(stem.partition(".")[0], known, n=4)


class MapSizes:
    """Map sizes by annotator, kept in the user's cache as long as the packages that they come from stay the same.

    Not for several threads. Processes that save at once overwrite one another's finds, never half a file.
    """

    def __init__(self) -> None:
        self._path = _cache_file()
        self._known = _load(self._path)

    def known(self, model: Listed) -> MapFound | None:
        """What was found before."""
        return self._known.get(_key(model))

    def find(self, model: Listed) -> MapFound:
        """What was found before, else what the network itself says, built without its weights."""
        if _key(model) not in self._known:
            self._known[_key(model)] = _find(model)
        return self._known[_key(model)]

    def save(self) -> None:
        """Keep what was found; where the cache cannot be written it is found again next time."""
        partial_file = self._path.with_suffix(f".{os.getpid()}.partial")
        decided = {key: found for key, found in self._known.items() if found.size or found.refused}
        kept = {key: [found.size, found.refused, found.reason] for key, found in decided.items()}
        with contextlib.suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            partial_file.write_text(json.dumps(kept))
            partial_file.replace(self._path)


def _key(model: Listed) -> str:
    """One for all tags of an architecture, whose weights alone differ."""
    return f"{model.name.partition('.')[0]} at {model.input_size}"


def _find(model: Listed) -> MapFound:
    try:
        network = build_weightless(partial(_build, model.name))
        try:
            return MapFound(find_map_size(network))
        except AnnotatorError as error:
            return MapFound(None, refused=True, reason=str(error).removeprefix(f"{model.name} "))
    except Exception as error:  # whatever a network raises that cannot do with shapes
        return MapFound(None, reason=in_short(error))


def _build(name: str) -> Network:
    spec = AnnotatorSpec(name, random_weights=True)
    source, colon, own_name = name.partition(":")
    if not colon:
        return builtin.build(spec)
    return timm_models.build(own_name, spec) if source == "timm" else torchvision_models.build(own_name, spec)


def _cache_file() -> Path:
    versions = "-".join(f"{name}-{_version(name)}" for name in ("labelstore", "timm", "torchvision", "torch"))
    return cache_folder("maps") / f"{versions}.json"


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "none"


def _load(path: Path) -> dict[str, MapFound]:
    try:
        kept: dict[str, Any] = json.loads(path.read_text())
        return {
            str(name): MapFound(None if size is None else (int(size[0]), int(size[1])), bool(refused), reason)
            for name, (size, refused, reason) in kept.items()
        }
    except (OSError, ValueError, TypeError, AttributeError, IndexError):
        return {}
