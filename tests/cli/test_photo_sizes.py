"""Shapes of photographs, as their maps see them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from PIL import Image

from labelstore.cli.reporting import gather
from labelstore.cli.reporting.photo_sizes import photo_aspects
from labelstore.ids import ImageIds, pack_ids
from labelstore.pipelines.observer import Observer
from labelstore.pipelines.photographs import Photographs
from labelstore.reader import LabelMapReader


def test_shapes_of_photographs_that_are_at_hand(picture_store, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    for name, size, more in (("a.png", (40, 20), {}), ("b.jpg", (30, 60), {}), ("c.jpg", (40, 20), {"exif": exif})):
        Image.new("RGB", size).save(tmp_path / name, **more)
    (tmp_path / "d.png").write_bytes(b"no image")
    ids = ImageIds(pack_ids(["a.png", "b.jpg", "c.jpg", "d.png", "none.png"]), "")
    photographs = Photographs(replace(LabelMapReader(picture_store).info, images_root=None), str(tmp_path))
    for rule, turned in (("ignore", 2.0), ("apply", 0.5)):
        found = photo_aspects(photographs, ids, range(5), rule)
        np.testing.assert_array_equal(found, [2.0, 0.5, turned, np.nan, np.nan])


def test_where_none_is_at_hand_few_are_looked_for(picture_store, tmp_path):
    reader = LabelMapReader(picture_store)
    asked = []

    class Counted(Photographs):
        def root(self, row):
            asked.append(row)
            return super().root(row)

    found = photo_aspects(Counted(reader.info, str(tmp_path)), reader.ids, range(21), "ignore")
    assert np.isnan(found).all()
    assert len(asked) == 8


def test_a_report_goes_by_the_sizes_that_the_store_has_and_looks_for_no_photograph(picture_store, monkeypatch):
    asked = []
    monkeypatch.setattr(
        gather, "photo_aspects", lambda photographs, ids, rows, exif: asked.append(rows) or np.full(len(rows), np.nan)
    )
    found = gather.gather(str(picture_store), Observer())
    assert (found.risk.images, found.risk.sized, asked) == (21, 21, [[]])
