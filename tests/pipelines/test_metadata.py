"""What a store says of itself, and where it is read."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import pytest

from labelstore.pipelines.metadata import COPY, GROUP, read_attributes
from labelstore.pipelines.store_files import LocalFiles

GOLDEN = Path(__file__).parents[1] / "golden" / "v1-topk.zarr"


class _Counting(LocalFiles):
    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.asked = Counter[str]()

    def read(self, key: str, most: int) -> bytes | None:
        self.asked[key] += 1
        return super().read(key, most)


@pytest.mark.parametrize(("damaged", "asked"), [((), [GROUP]), ((GROUP,), [GROUP, COPY]), ((COPY,), [GROUP])])
def test_the_copy_of_the_attributes_is_read_only_where_the_group_does_not_tell(damaged, asked, tmp_path):
    """A stranger's copy may be 64 MB of JSON, which takes a second each time."""
    store = tmp_path / "store.zarr"
    shutil.copytree(GOLDEN, store)
    expected = read_attributes(LocalFiles(store), "store")
    assert expected
    for key in damaged:
        (store / key).write_bytes(b"{}")
    files = _Counting(store)
    assert read_attributes(files, "store") == expected
    assert list(files.asked.elements()) == asked
