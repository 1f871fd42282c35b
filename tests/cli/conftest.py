"""What tests of the commands share: their servers and reports keep nothing in the user's own cache."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from labelstore.cli import survey_cache
from labelstore.pipelines.user_cache import cache_folder


@pytest.fixture(scope="session", autouse=True)
def surveys_of_tests(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep surveys in a folder of the tests, but for tests that name a cache themselves."""
    folder = tmp_path_factory.mktemp("surveys")

    def of_tests(kind: str) -> Path:
        return cache_folder(kind) if "XDG_CACHE_HOME" in os.environ else folder / kind

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(survey_cache, "cache_folder", of_tests)
        yield
