"""How the bytes of a store are found and checked. `open_source` is the way in."""

from labelstore.storage.base import DamagedRowError, Shard, Source
from labelstore.storage.open import is_blank, local_path, open_source, parse_group, store_arrays

__all__ = ["DamagedRowError", "Shard", "Source", "is_blank", "local_path", "open_source", "parse_group", "store_arrays"]
