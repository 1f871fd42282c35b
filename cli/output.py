"""How numbers are shown to people."""

from __future__ import annotations


def human_bytes(count: int | None) -> str:
    """Return a size in words, in powers of 1,000 as disks are sold."""
    if count is None:
        return "size unknown"
    size, unit = float(count), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if size < 1000:
            break
        size, unit = size / 1000, larger
    return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"


def human_count(count: int, what: str) -> str:
    """Return a number of things in words: ``1 image``, ``2 images``."""
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def human_seconds(seconds: float) -> str:
    """Return a duration in words."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"
