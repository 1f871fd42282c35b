"""Before a run on somebody's cluster: whether its workers can do the work, asked of each of them before anything is begun."""

from __future__ import annotations

import functools
import os
import socket
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Protocol, TypeVar

import torch

from labelstore.errors import ImageDecodeError, RunError, StoreWriteError
from labelstore.pipelines.annotators.spec import EnsembleSpec
from labelstore.pipelines.observer import Observer
from labelstore.pipelines.resources import Resources, WorkerFacts, settle
from labelstore.pipelines.shard import load_annotators
from labelstore.pipelines.sink import open_sink
from labelstore.pipelines.sources import Place
from labelstore.pipelines.store_files import store_files
from labelstore.storage import PARTIAL, local_path
from labelstore.threads import usable_cores

PACKAGES = ("labelstore", "torch", "zarr")
"""Those that make the bytes of a store."""
MOST_SECONDS_APART = 300
"""Object stores refuse requests of a clock that is further off, and certificates are not valid yet, or no more."""
_SHOWN = 3
T = TypeVar("T")


@dataclass(frozen=True)
class Question:
    """What a worker is to try: read an image, find a mark in the store's place and leave its own, load the annotators."""

    annotators: EnsembleSpec
    device: str
    store: str
    mark: str
    image: Place | None


@dataclass(frozen=True)
class Answer:
    """What a worker found; ``problem`` says what it cannot do. ``clock``: its time, in seconds since 1970."""

    facts: WorkerFacts
    clock: float
    mark: str
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
    workers: Workers, annotators: EnsembleSpec, store: str, images: Sequence[Place], asked: Resources, observer: Observer
) -> Resources:
    """Make sure that all workers can do the work, and return what the run uses of them.

    Parameters
    ----------
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
    _require_same_versions(workers.versions(PACKAGES))
    with marked(store) as (mark, remove):
        before = time.time()
        question = Question(annotators, asked.device, store, mark, next(filter(_is_readable, images), None))
        answers = workers.ask_all(answer, question)
        span = before, time.time()
        for found in answers.values():
            if isinstance(found, Answer):
                remove(found.mark)
    _require_able(answers, span)
    facts = {address: found.facts for address, found in answers.items() if isinstance(found, Answer)}
    if not facts:
        raise RunError("all workers have left the cluster; start some, and run annotate again")
    settled = settle(asked, facts)
    for one, other in _sharing_a_gpu(facts) if settled.device == "cuda" else ():
        observer.warning(
            f"{one} and {other} use the same CUDA device; start one worker for each, with its own CUDA_VISIBLE_DEVICES"
        )
    return settled


def answer(question: Question) -> Answer:
    """Try, on a worker, what the run will need."""
    own = f"mark.{uuid.uuid4().hex}{PARTIAL}"
    steps: dict[str, Callable[[], object]] = {
        f"read the image {question.image}": lambda: question.image and question.image.read(),
        f"see what the command sees as {question.store}": lambda: _find_mark(question),
        f"write to {question.store}": lambda: open_sink(question.store).put({own: own.encode()}),
        "load the annotator": lambda: load_annotators(question.annotators, question.device),
    }
    problem = ""
    for what, step in steps.items():
        try:
            step()
        except Exception as error:  # of foreign file systems and models, too
            problem = f"cannot {what}: {_reason(error)}{_hint(error)}"
            break
    facts = WorkerFacts(socket.gethostname(), usable_cores(), _gpus(question.device))
    return Answer(facts, time.time(), own, problem)


@contextmanager
def marked(store: str) -> Iterator[tuple[str, Callable[[str], object]]]:
    """Leave a small file where the store is, or is to be; yield its name, and what removes others of its kind. Gone afterwards.

    Raises
    ------
    StoreWriteError
        It cannot be written there.
    """
    mark = f"mark.{uuid.uuid4().hex}{PARTIAL}"
    try:
        sink = open_sink(store)
        sink.put({mark: mark.encode()})
    except Exception as error:  # whatever the file system behind a URL raises
        raise StoreWriteError(f"{store}: cannot be written: {_reason(error)}{_hint(error)}") from error
    try:
        yield mark, sink.delete
    finally:
        sink.delete(mark)


def require_writable(store: str) -> None:
    """Refuse a place behind a URL that cannot be written; who writes to a folder holds its lock.

    Raises
    ------
    StoreWriteError
    """
    if local_path(store) is None:
        with marked(store):
            pass


def require_versions(expected: Mapping[str, str]) -> None:
    """Refuse, on a worker that may have joined later, to work with other versions than the run was begun with.

    Raises
    ------
    RunError
    """
    differ = _differences(expected, own_versions())
    if differ:
        raise RunError(f"the worker process {os.getpid()} on {socket.gethostname()} has {differ}. What is committed is kept")


@functools.cache
def own_versions() -> Mapping[str, str]:
    """Return the versions of the packages that make a store's bytes, as this process has found them."""
    return {name: _version(name) for name in PACKAGES}


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def _require_same_versions(theirs: Mapping[str, Mapping[str, str | None]]) -> None:
    own = own_versions()
    problems = {address: _differences(own, found) for address, found in theirs.items()}
    _refuse({address: f"has {text}" for address, text in problems.items() if text}, len(theirs), "have other versions")


def _differences(own: Mapping[str, str], found: Mapping[str, str | None]) -> str:
    return ", ".join(
        f"{name} {found.get(name)} (here: {expected})" if found.get(name) else f"no {name} (here: {expected})"
        for name, expected in own.items()
        if found.get(name) != expected
    )


def _require_able(answers: Mapping[str, Answer | Exception], span: tuple[float, float]) -> None:
    problems = {}
    for address, found in answers.items():
        if isinstance(found, Exception):
            problems[address] = _reason(found)
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


def _find_mark(question: Question) -> None:
    if store_files(question.store).read(question.mark) != question.mark.encode():
        place = "folder, on a disk that all machines share" if local_path(question.store) is not None else "server and bucket"
        raise RunError(f"it must be the same {place}")


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


def _reason(error: Exception) -> str:
    text = getattr(error, "strerror", None) or str(error)
    return text.strip().splitlines()[0][:300] if text.strip() else type(error).__name__


def _hint(error: Exception) -> str:
    """What to do about it, where an object store's answer tells."""
    text = f"{type(error).__name__} {error}"
    for sign, hint in _HINTS.items():
        if sign in text:
            return f" ({hint})"
    return ""


_HINTS = {
    "TooSkewed": "the clock is wrong: set it right",
    "NoCredentials": "give them: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile",
    "SignatureDoesNotMatch": "the credentials are wrong: see AWS_SECRET_ACCESS_KEY",
    "InvalidAccessKeyId": "the credentials are wrong: see AWS_ACCESS_KEY_ID",
    "access key": "the credentials are wrong: see AWS_ACCESS_KEY_ID",
    "bucket does not exist": "make the bucket first",
    "NoSuchBucket": "make the bucket first",
    "EndpointConnection": "see AWS_ENDPOINT_URL",
}
