"""How the bytes of a store are found and checked. `open_source` is the way in."""

from labelstore.storage.base import ChangedError, DamagedRowError, Source, UsePart
from labelstore.storage.cached import CachedSource
from labelstore.storage.open import LOCK, PARTIAL, is_blank, is_partial, local_path, open_source, parse_group, store_arrays

__all__ = [
    "LOCK",
    "PARTIAL",
    "CachedSource",
    "ChangedError",
    "DamagedRowError",
    "Source",
    "UsePart",
    "is_blank",
    "is_partial",
    "local_path",
    "open_source",
    "parse_group",
    "store_arrays",
]
