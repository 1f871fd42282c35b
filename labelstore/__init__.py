"""Soft labels for image training: label maps made once, read at the speed of the loop.

`LabelMapReader` opens a store and serves its label maps, and the soft labels of crops pooled from them. Stores are made by
``labelstore annotate`` (`labelstore.pipelines`). Importing this package loads NumPy and nothing heavier.
"""

from typing import TYPE_CHECKING, Any

from labelstore.errors import (
    AnnotatorError,
    BoxError,
    CacheError,
    ClassMapError,
    DamagedError,
    FailedRowError,
    FormatError,
    ImageDecodeError,
    ImagesError,
    KeysError,
    LabelStoreError,
    MissingExtraError,
    OptionError,
    PendingRowError,
    RowIndexError,
    RunError,
    StoreMismatchError,
    StoreNotFoundError,
    StoreReadError,
    StoreTooLargeError,
    StoreWriteError,
    UnknownIdError,
)
from labelstore.schema import Status
from labelstore.version import __version__

if TYPE_CHECKING:
    from labelstore.labelmap import LabelMap
    from labelstore.reader import LabelMapReader

__all__ = [
    "AnnotatorError",
    "BoxError",
    "CacheError",
    "ClassMapError",
    "DamagedError",
    "FailedRowError",
    "FormatError",
    "ImageDecodeError",
    "ImagesError",
    "KeysError",
    "LabelMap",
    "LabelMapReader",
    "LabelStoreError",
    "MissingExtraError",
    "OptionError",
    "PendingRowError",
    "RowIndexError",
    "RunError",
    "Status",
    "StoreMismatchError",
    "StoreNotFoundError",
    "StoreReadError",
    "StoreTooLargeError",
    "StoreWriteError",
    "UnknownIdError",
    "__version__",
]


def __getattr__(name: str) -> Any:
    """Import what reads stores when it is asked for: making maps, on a machine that keeps none, does without its packages."""
    if name == "LabelMapReader":
        from labelstore.reader import LabelMapReader

        return LabelMapReader
    if name == "LabelMap":
        from labelstore.labelmap import LabelMap

        return LabelMap
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
