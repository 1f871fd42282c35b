"""Ids that contain a text, against looking at each."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labelstore import id_search
from labelstore.id_search import rows_containing
from labelstore.ids import ImageIds, pack_ids
from labelstore.reader import LabelMapReader

TEXTS = st.text("aAbB/é.", min_size=1, max_size=6)


@given(st.lists(TEXTS, unique=True, max_size=30), st.text("aAbB/é.", max_size=4), st.sampled_from([0, 500]))
def test_it_is_what_looking_at_each_finds(ids, text, few):
    """Both ways: hits walked one by one, and all bytes compared."""
    table = ImageIds(pack_ids(ids), "here")
    needle = text.encode().lower()
    expected = [row for row, image_id in enumerate(ids) if needle and needle in image_id.encode().lower()]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(id_search, "_FEW", few)
        assert rows_containing(table, text).tolist() == expected


def test_what_reaches_from_one_id_into_the_next_is_no_hit():
    table = ImageIds(pack_ids(["abcd", "efgh"]), "here")
    assert rows_containing(table, "de").tolist() == []
    assert rows_containing(table, "d").tolist() == [0]


def test_ids_on_the_disk_are_searched_likewise(picture_store, monkeypatch):
    expected = rows_containing(LabelMapReader(picture_store).ids, "EEN/").tolist()
    monkeypatch.setattr("labelstore.fetch.MOST_ID_BYTES", 0)
    on_disk = LabelMapReader(picture_store).ids
    assert type(on_disk).__name__ == "IdsOnDisk"
    assert rows_containing(on_disk, "EEN/").tolist() == expected == list(range(7, 14))
