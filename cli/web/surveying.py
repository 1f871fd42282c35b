"""The survey of a store that is served: made beside the answers, looked at on the way."""

from __future__ import annotations

import os
import threading
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray

from labelstore.class_map import ClassMap
from labelstore.cli.survey_cache import SurveyCache
from labelstore.errors import LabelStoreError
from labelstore.reader import LabelMapReader
from labelstore.schema import Status
from labelstore.survey import Survey

_BATCH = 128
_AGAIN = 15.0
"""Seconds until rows that were pending are looked for again."""
_NICE = 10
_PAUSE, _MOST_PAUSES = 0.002, 50


class Surveyor:
    """A thread that surveys a store, and goes on while rows become done.

    Attributes
    ----------
    survey
        What is known so far.
    version
        A number that changes when more is known.
    asked
        How many requests are being answered: the next batch waits for them, a tenth of a second at most.
    damaged
        Messages of rows that cannot be read, by row.
    """

    def __init__(self, reader: LabelMapReader, class_map: ClassMap | None = None, location: str | None = None) -> None:
        self.survey = Survey(reader, class_map)
        self._cache = None if location is None else SurveyCache(location, reader, self.survey)
        self.version = 0
        self.damaged: dict[int, str] = {}
        self.finished = threading.Event()
        self.asked = 0
        self._reader, self._stop = reader, threading.Event()
        self._thread = threading.Thread(target=self._run, name="survey", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End, soon."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    @property
    def looked_at(self) -> int:
        """How many rows are known."""
        return int(np.count_nonzero(self.survey.known))

    def _run(self) -> None:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)  # of this thread alone, on Linux
        if self._cache is not None:
            with suppress(LabelStoreError):  # damaged shards are named below
                self._cache.apply()
                self.version += 1
        try:
            self._look()
        finally:
            if self._cache is not None:
                with suppress(LabelStoreError):
                    self._cache.save()

    def _look(self) -> None:
        while not self._stop.is_set():
            status = self._reader.status()[: len(self.survey)]
            rows = np.flatnonzero((status == Status.DONE) & ~self.survey.known)
            for start in range(0, len(rows), _BATCH):
                if self._stop.is_set():
                    return
                self._let_others_go_first()
                self._look_at(rows[start : start + _BATCH])
            if self._cache is not None:
                self._cache.save()
            self.finished.set()
            if not (status == Status.PENDING).any():
                return
            self._stop.wait(_AGAIN)

    def _let_others_go_first(self) -> None:
        """Wait while requests are being answered, but not for ever."""
        for _ in range(_MOST_PAUSES):
            if not self.asked:
                return
            self._stop.wait(_PAUSE)

    def _look_at(self, rows: NDArray[np.int64]) -> None:
        try:
            self.survey.add(self._reader, rows)
        except LabelStoreError as error:
            if len(rows) == 1:
                self.damaged[int(rows[0])] = str(error)
                return
            for row in rows:
                if int(row) not in self.damaged:
                    self._look_at(np.array([row]))
        self.version += 1
