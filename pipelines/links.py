"""Links in the place of a store's own files and folders: readers go through them, what checks or changes a store does not.

A link leads out of the store: to files of others, which must not be removed, written or even read because a strange store says
so. A store as a whole may be linked.
"""

from __future__ import annotations

from labelstore.errors import FormatError
from labelstore.pipelines.folder import METADATA, Entry, StoreFolder
from labelstore.pipelines.left_overs import Kind, kind_of
from labelstore.pipelines.metadata import COPY, read_attributes
from labelstore.pipelines.store_files import LocalFiles, store_files
from labelstore.schema import StoreInfo
from labelstore.storage import local_path, parse_group, store_arrays


def require_no_links(location: str) -> None:
    """Refuse a local store one of whose own files, or whose arrays' folders, is a link; nothing is read behind one.

    Raises
    ------
    FormatError
    """
    path = local_path(location)
    if path is None or not path.is_dir():
        return
    with StoreFolder(path) as folder:
        copies = COPY.partition("/")[0]
        for key in (METADATA, copies, *([COPY] if folder.kind(copies) == "folder" else [])):  # where the attributes are read
            if folder.kind(key) == "link":
                raise _linked(location, key)
        info = _info(LocalFiles(path), location)
        arrays = {} if info is None else {spec.name: spec for spec in store_arrays(info)}
        for name in arrays:
            if folder.kind(name) == "link":
                raise _linked(location, name)
            inside = folder.entries(name) if folder.kind(name) == "folder" else []
            for key in (f"{name}/{entry.name}" for entry in inside if entry.kind == "link"):
                if info is not None and kind_of(Entry(key, "file"), info, arrays) is Kind.OURS:
                    raise _linked(location, key)


def require_unused(location: str, name: str) -> None:
    """Refuse to make an array's folder where there is something already: a link, or files of others.

    Raises
    ------
    FormatError
    """
    for entry in store_files(location).entries():
        if entry.name.partition("/")[0] == name:
            raise FormatError(f"{location}/{entry.name}: expected nothing in the place of a new array; move it away")


def _info(files: LocalFiles, location: str) -> StoreInfo | None:
    attributes = read_attributes(files, location)
    if attributes is None:  # others say why
        return None
    return parse_group({"node_type": "group", "attributes": attributes}, location)


def _linked(location: str, key: str) -> FormatError:
    return FormatError(
        f"{location}/{key}: expected a file or folder of the store's, found a link. Behind links nothing is read, written or "
        "removed but by readers and `labelstore verify --links`: link the store's folder as a whole, mount the other disk in "
        "this place, or copy the store"
    )
