"""What a classifier says of images, out of a NumPy file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from labelstore.errors import ImagesError, OptionError
from labelstore.npz import open_npz
from labelstore.pooling import softmax
from labelstore.reader import LabelMapReader
from labelstore.units import SIGMOID, SOFTMAX, UNCLEAR, DenseUnit, in_words

KINDS = ("probabilities", "logits")


@dataclass(frozen=True, eq=False)
class Predictions:
    """Probabilities ``[N, C]`` of the store's classes, of the images in ``rows`` ``[N]`` of the store.

    ``unknown`` images of the file are no rows of the store. ``unclear``: logits that all lie in [0, 1], as probabilities do.
    """

    rows: NDArray[np.int64]
    probabilities: NDArray[np.float32]
    unknown: int = 0
    unclear: bool = False


def read_predictions(path: str | Path, reader: LabelMapReader, scores: str | None = None) -> Predictions:
    """Read what a classifier says.

    Parameters
    ----------
    path
        An .npz file with ``ids`` (text, ``[N]``) and ``probabilities`` or ``logits`` ``[N, C]``; columns are the store's
        classes, in its order. Nothing is unpickled.
    scores
        What the values are, whatever the array is called: ``logits`` or ``probabilities``; None: what the array's name says,
        and logits that are probabilities are refused.

    Raises
    ------
    OptionError
        The file cannot be read or is something else, or its logits are probabilities.
    ImagesError
        An image twice, or none that the store has.
    """
    arrays = _load(path)
    kinds = [kind for kind in KINDS if kind in arrays]
    if "ids" not in arrays or len(kinds) != 1:
        raise OptionError(
            f"{path}: expected arrays ids and probabilities, or ids and logits, got {', '.join(arrays) or 'none'}"
        )
    ids, values = arrays["ids"], arrays[kinds[0]]
    unit = scores or kinds[0]
    _check_shapes(path, ids, values, unit, reader.num_classes)
    keys = [key.decode() if isinstance(key, bytes) else key for key in ids.tolist()]
    rows, known = reader.ids.find(keys)
    if len(set(keys)) != len(keys):
        raise ImagesError(f"{path}: expected each image once, got {len(keys) - len(set(keys))} of them again")
    if not known.any():
        raise ImagesError(f"{path}: none of its {len(keys)} images is in the store; the first: {keys[:1]}")
    chosen = values[known].astype(np.float32)
    if not np.isfinite(chosen).all():
        raise OptionError(f"{path}: {kinds[0]}: expected finite numbers")
    unclear = scores is None and unit == "logits" and _may_be_probabilities(path, values)
    probabilities = chosen if unit == "probabilities" else softmax(chosen)
    return Predictions(rows[known], probabilities, int((~known).sum()), unclear)


def _may_be_probabilities(path: str | Path, values: NDArray[Any]) -> bool:
    test = DenseUnit()
    test.add(values)
    found = test.verdict()
    if found in (SOFTMAX, SIGMOID):
        raise OptionError(
            f"{path}: logits: expected logits, got {in_words(found)}; their softmax would be next to uniform. Say --scores "
            "probabilities, or --scores logits if they are logits after all"
        )
    return found == UNCLEAR


def _load(path: str | Path) -> dict[str, NDArray[Any]]:
    try:
        columns = open_npz(path)
        return {name: columns[name][:] for name in ("ids", *KINDS) if name in columns}
    except OSError as error:
        raise OptionError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (ValueError, IndexError) as error:
        raise OptionError(f"{path}: expected arrays (.npz), found what cannot be read: {error}") from error


def _check_shapes(path: str | Path, ids: NDArray[Any], values: NDArray[Any], kind: str, num_classes: int) -> None:
    if ids.ndim != 1 or ids.dtype.kind not in "US":
        raise OptionError(f"{path}: ids: expected text [N], got {ids.dtype} {list(ids.shape)}")
    if values.shape != (len(ids), num_classes) or values.dtype.kind != "f":
        raise OptionError(
            f"{path}: {kind}: expected floating [{len(ids)}, {num_classes}], a row for each of ids and a column for each of "
            f"the store's classes, got {values.dtype} {list(values.shape)}"
        )
    if kind == "probabilities" and (values.size and (values.min() < 0 or values.max() > 1.001)):
        raise OptionError(f"{path}: probabilities: expected 0..1, got {values.min():g}..{values.max():g}; are they logits?")
