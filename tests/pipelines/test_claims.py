"""How long the word of a run that is at work on a store counts."""

from __future__ import annotations

import datetime

import pytest

from labelstore.pipelines.claims import SECONDS, Claim


@pytest.mark.parametrize(
    ("seconds", "holds"), [(0, True), (SECONDS - 60, True), (60 - SECONDS, True), (SECONDS + 60, False), (-SECONDS - 60, False)]
)
def test_a_claim_holds_for_minutes_around_now(seconds, holds):
    """A clock that goes wrong by a minute does no harm; nobody would outwait a claim of the year 9999."""
    since = datetime.datetime.now(datetime.UTC) - datetime.timedelta(seconds=seconds)
    assert Claim("0" * 32, since.isoformat(), "process 1").holds == holds


@pytest.mark.parametrize("since", ["9999-12-31T23:59:59-23:59", "0001-01-01T00:00:00+23:59", "2026-11-30", "", "now"])
def test_a_claim_of_no_time_does_not_hold(since):
    assert not Claim("0" * 32, since, "process 1").holds
