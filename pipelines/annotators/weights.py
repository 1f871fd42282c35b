"""Weights out of a file, put into a network that they must fit."""

from __future__ import annotations

import argparse
import itertools
import pickle
import re
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from labelstore.errors import AnnotatorError, MissingExtraError
from labelstore.pipelines.annotators.network import in_short
from labelstore.pipelines.annotators.weight_names import Names, names_in, names_in_metadata

_INSIDE = ("state_dict_ema", "model_ema", "ema_state_dict", "state_dict", "model_state_dict", "model", "module", "net")
"""Where training scripts keep the state dict in a checkpoint, averaged weights first."""
_PREFIXES = ("module.", "_orig_mod.", "model.", "backbone.")
_WRAPPERS = 3
"""Wrappers around one another."""
_COUNTERS = ("n_averaged", "num_batches_tracked")
"""What averaging and training count beside the weights: a network runs without."""
_SHOWN = 4


def build_with_weights(build: Callable[[int | None], nn.Module], path: str, name: str) -> tuple[nn.Module, Names | None]:
    """Build a network and load the file's weights into it; with as many classes as the file has.

    With the module come the classes' names that the file keeps: weights of one's own may be of any classes, so that their
    number says nothing of these.

    Parameters
    ----------
    build
        Returns the network with so many classes; None: its own number.

    Raises
    ------
    AnnotatorError
        The file cannot be read, or does not fit: says which tensors.
    """
    weights, names = read_weights(path)
    module = build(None)
    expected = {key: value for key, value in module.state_dict().items() if isinstance(value, Tensor)}
    weights = without_prefix(weights, expected)
    classes = _other_classes(weights, expected)
    if classes is not None:
        module = build(classes)
        expected = {key: value for key, value in module.state_dict().items() if isinstance(value, Tensor)}
    _check_fit(weights, expected, path, name)
    state = module.state_dict()  # with what some networks (MNASNet) want to know of a state dict beside its tensors
    state.update(weights)
    module.load_state_dict(state, strict=False)
    widths = {value.shape[0] for value in weights.values() if value.ndim}
    return module, names if names is not None and len(names) in widths else None


def read_weights(path: str) -> tuple[dict[str, Tensor], Names | None]:
    """Read a state dict out of a safetensors file, or out of a checkpoint, and the classes' names where it keeps them; nothing
    but tensors and plain values is ever unpickled.

    Raises
    ------
    AnnotatorError
        There is no such file, or none with weights.
    """
    if not Path(path).is_file():
        raise AnnotatorError(f"--weights {path}: no such file")
    kind = "safetensors" if path.endswith(".safetensors") else "torch.save"
    try:
        found, names = (_safetensors if kind == "safetensors" else _checkpoint)(path)
    except (AnnotatorError, MissingExtraError):
        raise
    except Exception as error:  # what the readers raise on a broken file is theirs
        raise AnnotatorError(f"--weights {path}: cannot be read as a file of {kind}: {_in_words(error)}") from error
    tensors = {str(key): value for key, value in found.items() if isinstance(value, Tensor)}
    if not tensors:
        kinds = ", ".join(f"{key}: {type(value).__name__}" for key, value in list(found.items())[:_SHOWN])
        raise AnnotatorError(f"--weights {path}: expected a state dict of tensors, got {kinds or 'nothing'}")
    return tensors, names


def without_prefix(weights: dict[str, Tensor], expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights without what wrappers (DataParallel, torch.compile, Lightning) put before names, if that fits."""
    orders = itertools.chain.from_iterable(itertools.product(_PREFIXES, repeat=depth) for depth in range(_WRAPPERS + 1))
    prefix = max(map("".join, orders), key=lambda prefix: sum(key.removeprefix(prefix) in expected for key in weights))
    return {key.removeprefix(prefix): value for key, value in weights.items()}


def _safetensors(path: str) -> tuple[Mapping[str, Any], Names | None]:
    try:
        from safetensors import SafetensorError, safe_open
        from safetensors.torch import load_file
    except ImportError as error:
        raise MissingExtraError(f"--weights {path} needs safetensors: pip install 'labelstore[timm]' ({error})") from error
    try:
        tensors: Mapping[str, Any] = load_file(path)
        with safe_open(path, "pt") as file:
            names = names_in_metadata(file.metadata())
    except SafetensorError as error:
        raise ValueError(str(error)) from error
    return tensors, names


def _checkpoint(path: str) -> tuple[Mapping[str, Any], Names | None]:
    with warnings.catch_warnings(), torch.serialization.safe_globals([argparse.Namespace]):  # training scripts keep such
        warnings.simplefilter("ignore")  # of other pickle protocols
        try:
            found = torch.load(path, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            other = re.search(r"GLOBAL (\S+)", str(error))
            if other is None:
                raise
            raise AnnotatorError(
                f"--weights {path}: not only tensors: it holds {other[1]}, which is not unpickled, it could run any code; save "
                "the state dict alone: torch.save(model.state_dict(), ...), or as .safetensors"
            ) from error
    names = None
    while isinstance(found, Mapping) and not any(isinstance(value, Tensor) for value in found.values()):
        names = names or names_in(found)
        inner = next((found[key] for key in _INSIDE if isinstance(found.get(key), Mapping) and found[key]), None)
        if inner is None:
            break
        found = inner
    if not isinstance(found, Mapping):
        raise TypeError(f"expected a state dict, got {type(found).__name__}")
    return found, names


def _in_words(error: Exception) -> str:
    if isinstance(error, pickle.UnpicklingError):  # torch's own words are advice to unpickle all the same
        return "it is none, or damaged"
    return in_short(error)


def _other_classes(weights: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> int | None:
    """The number of classes of weights that differ in nothing but it."""
    pairs = [(weights[key].shape, value.shape) for key, value in expected.items() if key in weights]
    differ = {(got[0], want[0]) for got, want in pairs if got != want and got[1:] == want[1:] and len(got) and len(want)}
    return int(differ.pop()[0]) if len(differ) == 1 else None


def _check_fit(weights: Mapping[str, Tensor], expected: Mapping[str, Tensor], path: str, name: str) -> None:
    missing = [key for key in expected if key not in weights and not key.endswith(_COUNTERS)]
    unknown = [key for key in weights if key not in expected and not key.endswith(_COUNTERS)]
    other = [
        f"{key}: expected {list(value.shape)}, got {list(weights[key].shape)}"
        for key, value in expected.items()
        if key in weights and weights[key].shape != value.shape
    ]
    problems = [
        f"{len(keys)} {words} ({', '.join(keys[:_SHOWN])}{', ...' if len(keys) > _SHOWN else ''})"
        for keys, words in ((missing, "tensors are missing"), (unknown, "are not the model's"), (other, "have another shape"))
        if keys
    ]
    if problems:
        raise AnnotatorError(
            f"--weights {path} do not fit {name}, which has {len(expected)} tensors, the file {len(weights)}: "
            f"{'; '.join(problems)}"
        )
