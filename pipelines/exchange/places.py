"""Where stores and files are, told so that workers find them too."""

from __future__ import annotations

from labelstore.pipelines.records import absolute
from labelstore.pipelines.sources.spec import is_url


def whole_place(location: str) -> str:
    """Return a URL as it is, or a path from the root: workers may run in another folder."""
    return location if is_url(location) else absolute(location)
