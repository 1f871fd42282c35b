"""Image ids: packing and look-up, against a plain dict."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from labelstore import DamagedError, UnknownIdError
from labelstore.ids import ImageIds, pack_ids

texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=12)


@given(st.lists(texts, unique=True, max_size=40), st.lists(texts, max_size=5), st.booleans())
def test_look_up_is_that_of_a_dict(ids, others, in_order):
    ids = sorted(ids, key=str.encode) if in_order else ids
    table = ImageIds(pack_ids(ids), "here")
    truth = {key: row for row, key in enumerate(ids)}
    assert list(table) == ids
    assert table.rows(ids).tolist() == list(range(len(ids)))
    for key in others:
        assert (key in table) == (key in truth)
        if key in truth:
            assert table.rows([key]).tolist() == [truth[key]]
        else:
            with pytest.raises(UnknownIdError, match="here: no image id"):
                table.rows([*ids[:1], key])


@pytest.mark.parametrize("key", ["b\0", "a\0b", "\0", "", "a" * 50, "é" * 20, "\udc80"])
def test_ids_that_cannot_be_stored_are_not_there(key):
    assert key not in ImageIds(pack_ids(["a", "b", "cc"]), "here")


def test_an_id_that_is_no_text_is_unknown():
    with pytest.raises(UnknownIdError, match="no image id"):
        ImageIds(pack_ids(["a", "b"]), "here").rows(["\ud800.png"])


def test_similar_ids_are_suggested():
    ids = ImageIds(pack_ids(sorted(f"n{folder:03}/{name}.JPEG" for folder in range(200) for name in range(50))), "here")
    assert "n007/13.JPEG" in ids.similar("n007/13.jpeg")
    assert ids.similar("n007/13.jpg")
    with pytest.raises(UnknownIdError, match=r"similar: 'n007/13\.JPEG'"):
        ids.rows(["n007/13.jpeg"])
    cats = ImageIds(pack_ids(["cats/felix.jpg", "coffee.png", "dogs/rex.jpg"]), "here")
    assert cats.similar("felix.jpg") == ["cats/felix.jpg"]
    assert cats.similar("cofee.png") == ["coffee.png"]


def test_a_hostile_id_is_damage():
    matrix = np.array([[0xFF, 0xFE]], np.uint8)
    with pytest.raises(DamagedError, match="expected UTF-8"):
        ImageIds(matrix, "here")[0]
