"""Which image formats are decoded, and what their files are called: what Pillow knows, and no programs that it would run."""

from __future__ import annotations

import functools
import importlib.util

_EXTENSIONS = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "PNG": (".png",),
    "GIF": (".gif",),
    "BMP": (".bmp",),
    "PPM": (".ppm", ".pgm"),
    "TIFF": (".tif", ".tiff"),
    "WEBP": (".webp",),
    "TGA": (".tga",),
    "JPEG2000": (".jp2", ".j2k"),
    "AVIF": (".avif",),
    "HEIF": (".heic", ".heif"),
}
_TGA_TYPES, _TGA_DEPTHS, _TGA_HEADER = (1, 2, 3, 9, 10, 11), (8, 15, 16, 24, 32), 18


@functools.cache
def formats() -> tuple[str, ...]:
    """Return Pillow's names of the formats that are decoded here: some are not built in everywhere, HEIF is a plug-in."""
    from PIL import features

    missing = {name for name, feature in (("JPEG2000", "jpg_2000"), ("AVIF", "avif")) if not features.check(feature)}
    if importlib.util.find_spec("pillow_heif") is None:
        missing.add("HEIF")
    else:
        import pillow_heif

        pillow_heif.register_heif_opener()
    return tuple(name for name in _EXTENSIONS if name not in missing)


@functools.cache
def extensions() -> tuple[str, ...]:
    """Return the extensions, in lower case, of files that are images here."""
    return tuple(extension for name in formats() for extension in _EXTENSIONS[name])


def is_image_name(name: str) -> bool:
    """Whether a file is an image by its extension."""
    return name.lower().endswith(extensions())


def is_tga(data: bytes) -> bool:
    """Whether a file looks like Truevision's TGA, which has no signature at its start: Pillow takes much else for one."""
    if len(data) <= _TGA_HEADER:
        return False
    if data[-18:-1] == b"TRUEVISION-XFILE.":
        return True
    maps, kind, depth = data[1], data[2], data[16]
    width, height = int.from_bytes(data[12:14], "little"), int.from_bytes(data[14:16], "little")
    if maps > 1 or kind not in _TGA_TYPES or depth not in _TGA_DEPTHS or not width * height:
        return False
    table = int.from_bytes(data[5:7], "little") * -(-data[7] // 8) if maps else 0
    packed = kind > 8
    least = 1 if packed else width * height * -(-depth // 8)
    return len(data) >= _TGA_HEADER + data[0] + table + least
