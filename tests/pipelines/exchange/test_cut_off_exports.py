"""Exports that are cut off: they are told from whole ones, gone on with by the same command, and mixed with no other."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from folders import contents, stamps
from runs import SERIAL

from labelstore import LabelMapReader
from labelstore.errors import ImagesError, LabelStoreError, OptionError
from labelstore.pipelines.exchange.array_import import ArrayImport, import_arrays
from labelstore.pipelines.exchange.export_arrays import export_arrays
from labelstore.pipelines.exchange.export_pt import export_pt
from labelstore.pipelines.exchange.export_tar import export_tar
from labelstore.pipelines.exchange.exporting import UNFINISHED
from labelstore.pipelines.exchange.pt_import import PtImport, import_pt
from labelstore.pipelines.exchange.selection import Selection
from labelstore.pipelines.exchange.tar_import import TarImport, import_tars
from labelstore.pipelines.observer import Observer
from labelstore.pipelines.writer import LabelMapWriter

SOME = Selection(patterns=("red/*",))


class Cut(Observer):
    """Ends a run when some rows are written."""

    def rows(self, done: int, failed: int) -> None:
        if done:
            raise KeyboardInterrupt


EXPORTS: dict[str, Callable[..., Any]] = {
    "maps": lambda store, dest, some, observer: export_pt(str(store), str(dest), "yx", some, observer),
    "maps.zarr": lambda store, dest, some, observer: export_arrays(str(store), str(dest), some, observer),
    "tars": lambda store, dest, some, observer: export_tar(str(store), str(dest), 5, some, observer),
}
IMPORTS: dict[str, Callable[..., Any]] = {
    "maps": lambda folder, store: import_pt(PtImport(folder, "relabel", "yx", num_classes=8), store, SERIAL, Observer()),
    "maps.zarr": lambda folder, store: import_arrays(ArrayImport(folder), store, SERIAL, Observer()),
    "tars": lambda folder, store: import_tars(TarImport(folder), store, SERIAL, Observer()),
}


@pytest.mark.parametrize("name", EXPORTS)
def test_a_cut_off_export_is_known_and_gone_on_with(topk: Path, tmp_path: Path, name: str) -> None:
    export, whole, dest = EXPORTS[name], tmp_path / "whole" / name, tmp_path / name
    export(topk, whole, Selection(), Observer())
    with pytest.raises(KeyboardInterrupt):
        export(topk, dest, Selection(), Cut())
    assert (dest / UNFINISHED).is_file()
    with pytest.raises(ImagesError, match="an export that was cut off: expected a whole one"):
        IMPORTS[name](str(dest), str(tmp_path / "s.zarr"))
    assert not (tmp_path / "s.zarr").exists()
    before = stamps(dest)
    with pytest.raises(OptionError, match="found another export that was cut off"):
        export(topk, dest, SOME, Observer())
    assert stamps(dest) == before
    export(topk, dest, Selection(), Observer())
    assert contents(dest).keys() == contents(whole).keys()
    assert UNFINISHED not in contents(dest)
    IMPORTS[name](str(dest), str(tmp_path / "s.zarr"))
    assert LabelMapReader(tmp_path / "s.zarr").info.num_images == 21


@pytest.mark.parametrize("name", EXPORTS)
def test_what_is_whole_or_a_strangers_is_not_written_to(topk: Path, tmp_path: Path, name: str) -> None:
    export, dest = EXPORTS[name], tmp_path / name
    export(topk, dest, Selection(), Observer())
    before = stamps(dest)
    with pytest.raises(OptionError, match="expected nothing, or an empty folder"):
        export(topk, dest, Selection(), Observer())
    assert stamps(dest) == before


def test_an_id_that_begins_with_a_slash_stays_below_the_folder(tmp_path: Path) -> None:
    ids = ["/x.jpg", "a//y.jpg", "b/z.jpg"]
    store, dest = str(tmp_path / "s.zarr"), tmp_path / "maps"
    with LabelMapWriter.create(store, ids, num_classes=3, map_size=(1, 1), top_k=1) as writer:
        for shard in writer.pending():
            with writer.shard(shard) as rows:
                rows.put_maps(0, np.zeros((len(rows.ids), 1, 1, 1), np.uint16), np.full((len(rows.ids), 1, 1, 1), 3.0))
    export_pt(store, str(dest), "yx", Selection(), Observer())
    assert set(contents(dest)) == {"x.pt", "y.pt", "b/z.pt"}
    assert not Path("/x.pt").exists()
    assert not Path("/y.pt").exists()
    assert torch.load(dest / "x.pt", weights_only=True).shape == (2, 1, 1, 1)


@pytest.mark.parametrize(("name", "given"), [("maps.zarr", "in/x.npz"), ("tars", "in")])
def test_a_pipe_is_not_waited_for(tmp_path: Path, name: str, given: str) -> None:
    (tmp_path / "in").mkdir()
    os.mkfifo(tmp_path / "in" / "x.npz")
    os.mkfifo(tmp_path / "in" / "x.tar")
    with pytest.raises(LabelStoreError, match="cannot be read: not a file"):
        IMPORTS[name](str(tmp_path / given), str(tmp_path / "s.zarr"))


def test_the_file_beside_tars_may_be_a_pipe_too(topk: Path, tmp_path: Path) -> None:
    export_tar(str(topk), str(tmp_path / "in"), 100, Selection(), Observer())
    (tmp_path / "in" / "labelstore.json").unlink()
    os.mkfifo(tmp_path / "in" / "labelstore.json")
    with pytest.raises(LabelStoreError, match="not a file"):
        import_tars(TarImport(str(tmp_path / "in")), str(tmp_path / "s.zarr"), SERIAL, Observer())
