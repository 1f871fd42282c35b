"""Where stores and files are, told so that workers find them too."""

from __future__ import annotations

from labelstore.pipelines.records import absolute
from labelstore.pipelines.sources.spec import is_url


def store_place(location: str) -> str:
    """Return a store's URL, or its path from the root."""
    return location if is_url(location) else absolute(location)
