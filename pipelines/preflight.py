"""Before a run on somebody's cluster: whether its workers can do the work, asked of each of them before anything is begun."""

from __future__ import annotations

import os
import socket
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import torch

from labelstore.errors import ImageDecodeError, RunError
from labelstore.pipelines.annotators.spec import EnsembleSpec
from labelstore.pipelines.marks import Mark, in_words, marked
from labelstore.pipelines.observer import Observer
from labelstore.pipelines.resources import Resources, WorkerFacts, settle
from labelstore.pipelines.shard import load_annotators
from labelstore.pipelines.sink import open_sink
from labelstore.pipelines.sources import Place
from labelstore.pipelines.versions import SHARED, differences, shared_versions
from labelstore.threads import usable_cores

MOST_SECONDS_APART = 300
"""Object stores refuse requests of a clock that is further off, and certificates are not valid yet, or no more."""
_SHOWN = 3
T = TypeVar("T")


@dataclass(frozen=True)
class Question:
    """What a worker is to try: read an image, find a mark in the store's place and leave its own, load the annotators."""

    annotators: EnsembleSpec | None
    device: str
    store: str
    mark: Mark
    image: Place | None


@dataclass(frozen=True)
class Answer:
    """What a worker found; ``problem`` says what it cannot do. ``clock``: its time, in seconds since 1970."""

    facts: WorkerFacts
    clock: float
    mark: Mark
    problem: str = ""


class Workers(Protocol):
    """A cluster's workers."""

    def versions(self, packages: tuple[str, ...]) -> Mapping[str, Mapping[str, str | None]]:
        """Return the versions of packages by worker; None where one is not installed."""
        ...

    def ask_all(self, function: Callable[[Any], T], spec: Any) -> Mapping[str, T | Exception]:
        """Run a function on every worker; return what it returned, or raised, by worker."""
        ...


def look_at_workers(
    workers: Workers, annotators: EnsembleSpec | None, store: str, images: Sequence[Place], asked: Resources, observer: Observer
) -> Resources:
    """Make sure that all workers can do the work, and return what the run uses of them.

    Parameters
    ----------
    annotators
        What they are to load; None: nothing.
    images
        Some of the run's. The first of them that can be read here must be readable there.

    Raises
    ------
    RunError
        Some cannot: other versions, an annotator that they cannot load, images or a store that they do not reach, a clock that
        is wrong. Says which, and what.
    OptionError
        As `settle`.
    StoreWriteError
        The store cannot be written from here.
    """
    observer.phase("looking at the workers")
    _require_same_versions(workers.versions(SHARED))
    with marked(store) as (mark, sink):
        before = time.time()
        question = Question(annotators, asked.device, store, mark, next(filter(_is_readable, images), None))
        answers = workers.ask_all(answer, question)
        span = before, time.time()
        for found in answers.values():
            if isinstance(found, Answer):
                sink.delete(found.mark.name)
    _require_able(answers, span)
    facts = {address: found.facts for address, found in answers.items() if isinstance(found, Answer)}
    if not facts:
        raise RunError("all workers have left the cluster; start some, and run the same command again")
    settled = settle(asked, facts)
    for one, other in _sharing_a_gpu(facts) if settled.device == "cuda" else ():
        observer.warning(
            f"{one} and {other} use the same CUDA device; start one worker for each, with its own CUDA_VISIBLE_DEVICES"
        )
    return settled


def answer(question: Question) -> Answer:
    """Try, on a worker, what the run will need."""
    own = Mark.new()

    def load() -> None:
        if question.annotators is not None:
            load_annotators(question.annotators, question.device)

    steps: dict[str, Callable[[], object]] = {
        f"read the image {question.image}": lambda: question.image and question.image.read(),
        f"see what the command sees as {question.store}": lambda: question.mark.find(question.store),
        f"write to {question.store}": lambda: own.leave(open_sink(question.store)),
        "load the annotator": load,
    }
    problem = ""
    for what, step in steps.items():
        try:
            step()
        except Exception as error:  # of foreign file systems and models, too
            problem = f"cannot {what}: {in_words(error)}"
            break
    facts = WorkerFacts(socket.gethostname(), usable_cores(), _gpus(question.device))
    return Answer(facts, time.time(), own, problem)


def require_versions(expected: Mapping[str, str]) -> None:
    """Refuse, on a worker that may have joined later, to work with other versions than the run was begun with.

    Raises
    ------
    RunError
    """
    differ = differences(expected, shared_versions())
    if differ:
        raise RunError(f"the worker process {os.getpid()} on {socket.gethostname()} has {differ}. What is committed is kept")


def _require_same_versions(theirs: Mapping[str, Mapping[str, str | None]]) -> None:
    problems = {address: differences(shared_versions(), found) for address, found in theirs.items()}
    _refuse({address: f"has {text}" for address, text in problems.items() if text}, len(theirs), "have other versions")


def _require_able(answers: Mapping[str, Answer | Exception], span: tuple[float, float]) -> None:
    problems = {}
    for address, found in answers.items():
        if isinstance(found, Exception):
            problems[address] = in_words(found)
        else:
            apart = max(span[0] - found.clock, found.clock - span[1])
            wrong = f"has a clock that is {apart:.0f} s off: set it right" if apart > MOST_SECONDS_APART else ""
            problems[address] = wrong or found.problem
    _refuse({address: text for address, text in problems.items() if text}, len(answers), "cannot do the work")


def _refuse(problems: Mapping[str, str], count: int, what: str) -> None:
    """Say which workers have a problem, those with the same one together."""
    if not problems:
        return
    having: dict[str, list[str]] = defaultdict(list)
    for address, text in problems.items():
        having[text].append(address)
    said = []
    for text, addresses in list(having.items())[:_SHOWN]:
        more = f" and {len(addresses) - _SHOWN} more" if len(addresses) > _SHOWN else ""
        said.append(f"{', '.join(addresses[:_SHOWN])}{more}: {text}")
    raise RunError(f"{len(problems)} of {count} workers {what}. {'; '.join(said)}. Nothing was begun")


def _is_readable(image: Place) -> bool:
    try:
        image.read()
    except (OSError, ImageDecodeError):
        return False
    return True


def _gpus(device: str) -> tuple[str, ...]:
    """What tells this process's CUDA devices from others; none where they are not to be used."""
    if device == "cpu" or not torch.cuda.is_available():
        return ()
    properties = map(torch.cuda.get_device_properties, range(torch.cuda.device_count()))
    return tuple(str(getattr(found, "uuid", found.name)) for found in properties)


def _sharing_a_gpu(facts: Mapping[str, WorkerFacts]) -> Iterator[tuple[str, str]]:
    """Pairs of workers on the same device: each uses the first that it sees."""
    first: dict[tuple[str, str], str] = {}
    for address, found in facts.items():
        device = found.host, found.gpus[0]
        if device in first:
            yield first[device], address
        first.setdefault(device, address)
