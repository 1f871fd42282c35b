"""Surveys against one image at a time, and what is summed up of them against plain loops."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from labelstore.cli.mapview import MapView
from labelstore.reader import LabelMapReader
from labelstore.schema import NO_CLASS
from labelstore.statistics import class_facts, confusions, images_by_class, overview, together
from labelstore.survey import PRESENT, SURE, Survey, entropy, present_classes


@pytest.fixture(params=["picture_store", "spectral_store"])
def surveyed(request):
    """A reader, and a survey of all its rows in two batches."""
    reader = LabelMapReader(request.getfixturevalue(request.param))
    survey = Survey(reader)
    survey.add(reader, np.arange(0, 5))
    survey.add(reader, np.arange(5, len(reader)))
    return reader, survey


def test_columns_are_what_the_reader_says_of_each_image(surveyed):
    reader, survey = surveyed
    for row in range(len(reader)):
        soft = reader.pool([row], [(0, 0, 1, 1)])[0]
        assert survey.best[row] == soft.argmax()
        assert survey.best_probability[row] == pytest.approx(soft.max(), rel=1e-3)
        assert survey.own_probability[row] == pytest.approx(soft[survey.own[row]], rel=1e-2, abs=1e-6)
        assert survey.entropy[row] == pytest.approx(-sum(p * np.log(p) for p in soft if p), rel=1e-2, abs=1e-3)
        view = MapView.from_map(reader[row].classes, reader[row].scores, reader.num_classes)
        shares = Counter(view.best[view.probability >= SURE].tolist())
        found = dict(zip(survey.present[row].tolist(), survey.shares[row].tolist(), strict=True))
        assert {
            number: int(np.ceil(count / 49 * 255)) for number, count in shares.most_common(PRESENT)
        }.items() <= found.items()
    names = [reader.class_names[number] for number in survey.own.tolist()]
    assert names == [image_id.split("/")[0] for image_id in reader.ids]


def test_rows_that_were_not_looked_at_are_not_known(picture_store):
    reader = LabelMapReader(picture_store)
    survey = Survey(reader)
    assert not survey.known.any()
    assert not survey.has_class(2).any()
    assert not survey.disagrees.any()
    assert overview(survey).images == 0
    assert class_facts(survey) == confusions(survey) == together(survey) == []


@given(arrays(np.uint16, (3, 4, 5), elements=st.sampled_from([0, 1, 2, 5, 7, 9, 11, 300, NO_CLASS])))
def test_the_most_frequent_classes_and_their_shares(best):
    present, shares = present_classes(best)
    for image, numbers, levels in zip(best, present.tolist(), shares.tolist(), strict=True):
        counts = Counter(image.ravel().tolist())
        counts.pop(NO_CLASS, None)
        expected = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:PRESENT]
        expected += [(NO_CLASS, 0)] * (PRESENT - len(expected))
        assert numbers == [number for number, _ in expected]
        assert levels == [int(np.ceil(count * 255 / 20)) for _, count in expected]


def test_entropy_of_certainty_is_0_and_of_none_the_logarithm_of_the_classes():
    soft = np.array([[1, 0, 0, 0], [0.25, 0.25, 0.25, 0.25]], np.float32)
    np.testing.assert_allclose(entropy(soft), [0, np.log(4)], atol=1e-6)


def test_statistics_are_those_of_plain_loops(surveyed):
    reader, survey = surveyed
    found, rows = overview(survey), range(len(reader))
    assert (found.images, found.labelled) == (21, 21)
    assert found.agree == sum(survey.best[row] == survey.own[row] for row in rows)
    assert found.several == sum((survey.shares[row] >= 26).sum() >= 2 for row in rows)
    assert found.entropy[1].sum() == 21
    pairs = Counter((int(survey.own[row]), int(survey.best[row])) for row in rows if survey.best[row] != survey.own[row])
    assert {(own, best): count for own, best, count in confusions(survey)} == pairs
    for facts in class_facts(survey):
        assert facts.best == sum(survey.best[row] == facts.number for row in rows)
        assert facts.labelled == sum(survey.own[row] == facts.number for row in rows)
        assert facts.shown == images_by_class(survey, 0.1)[facts.number]
    both = Counter()
    for row in rows:
        shown = sorted(survey.present[row][survey.shares[row] >= 26].tolist())
        both.update((one, other) for place, one in enumerate(shown) for other in shown[place + 1 :])
    assert {(one, other): count for one, other, count in together(survey)} == both
    assert (4, 5) in both  # blue and yellow, in one picture
