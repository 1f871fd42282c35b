"""How maps are kept in a store: one module an encoding, found by the name that the store records."""

from __future__ import annotations

from labelstore.encodings.base import Arrays, Encoding, SoftLabels
from labelstore.encodings.spectral import Spectral
from labelstore.encodings.topk import TopK
from labelstore.errors import FormatError
from labelstore.schema import COMMON_ARRAYS, IMAGE_SIZE, ArraySpec, StoreInfo

ENCODINGS: dict[str, Encoding] = {TopK.name: TopK(), Spectral.name: Spectral()}

__all__ = ["ENCODINGS", "Arrays", "Encoding", "SoftLabels", "committed_arrays", "find_encoding"]


def find_encoding(name: str, where: str) -> Encoding:
    """Return the encoding that a store names.

    Raises
    ------
    FormatError
        This version does not know it.
    """
    try:
        return ENCODINGS[name]
    except KeyError:
        known = ", ".join(ENCODINGS)
        raise FormatError(f"{where}: encoding: expected one of {known}, found {name!r}; is labelstore too old?") from None


def committed_arrays(info: StoreInfo, where: str = "store") -> tuple[ArraySpec, ...]:
    """Return the arrays that a shard's task writes, in the order in which ``commits`` lists their files."""
    sizes = (IMAGE_SIZE,) if info.image_sizes else ()
    return (*find_encoding(info.encoding, where).arrays(info), *COMMON_ARRAYS, *sizes)
