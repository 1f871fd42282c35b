"""What can go wrong: one base class; every error is also the builtin that a caller would expect.

Messages say what was expected, what was found and where, without credentials of URLs. All of them can be pickled (they cross
process borders).
"""

from __future__ import annotations

from labelstore.credentials import without_credentials


class LabelStoreError(Exception):
    """Base of everything that labelstore raises on purpose."""

    def __str__(self) -> str:  # KeyError would show its message quoted, OSError as a tuple
        return without_credentials(str(self.args[0])) if self.args else ""


class StoreNotFoundError(LabelStoreError, FileNotFoundError):
    """There is nothing at the store's path."""


class FormatError(LabelStoreError, ValueError):
    """What is there is no label store, or one that this version cannot read."""


class UnfinishedStoreError(FormatError):
    """A store whose creation was cut off; annotate starts it again."""


class StoreMismatchError(LabelStoreError, ValueError):
    """A store exists, but was made with other settings or for other images."""


class StoreWriteError(LabelStoreError, OSError):
    """The store cannot be written: full or read-only disk, missing rights."""


class StoreBusyError(StoreWriteError):
    """Another process is writing to the store."""


class DamagedError(LabelStoreError, OSError):
    """Stored bytes are not what was committed: a failed checksum, a cut file, impossible values."""


class StoreReadError(LabelStoreError, OSError):
    """The system does not let a file of the store be read: missing rights, too many open files, a failing disk."""


class StoreTooLargeError(LabelStoreError, MemoryError):
    """A store of so many rows, or rows of such a size, that there is no memory for what a reader keeps of them."""


class CacheError(LabelStoreError, OSError):
    """The folder for decoded maps cannot be used."""


class UnknownIdError(LabelStoreError, KeyError):
    """No row has this image id."""


class RowIndexError(LabelStoreError, IndexError):
    """A row number outside the store."""


class PendingRowError(LabelStoreError, KeyError):
    """The row's label map has not been made yet."""


class FailedRowError(LabelStoreError, KeyError):
    """The row's image could not be annotated; the message gives the reason."""


class KeysError(LabelStoreError, TypeError):
    """Keys that are neither image ids nor row numbers."""


class BoxError(LabelStoreError, ValueError):
    """Boxes that are malformed, not finite, or wholly outside the image."""


class ClassMapError(LabelStoreError, ValueError):
    """Columns that are no classes of the store."""


class OptionError(LabelStoreError, ValueError):
    """A setting with a value that cannot be used."""


class ImagesError(LabelStoreError, ValueError):
    """A collection of images that cannot be annotated: missing, empty, or with unusable names."""


class ImageDecodeError(LabelStoreError, ValueError):
    """One image that cannot be read; becomes the reason of a failed row."""


class AnnotatorError(LabelStoreError, ValueError):
    """A model that is unknown, cannot be loaded, or has no per-location head."""


class MissingExtraError(LabelStoreError, ImportError):
    """An optional dependency is not installed; the message names the extra."""


class RunError(LabelStoreError, RuntimeError):
    """A run over a cluster that could not be brought to its end."""


class TransformError(LabelStoreError, TypeError):
    """A transform, or a step of one, through which the crop's box cannot be followed."""


class MapsError(LabelStoreError, ValueError):
    """Tensors that are no batch of label maps, or do not belong together."""


class ClassMatchError(LabelStoreError, ValueError):
    """A data set's classes that are not the store's, without a word on which is which."""


class ImageMismatchError(LabelStoreError, ValueError):
    """An image that is not the one that its label map was made from."""


class UnlockedStoreWarning(UserWarning):
    """A store's file system has no locks: nothing keeps two runs from writing to the store at the same time."""
