"""Pretrained weights come from a cache or over the network; without either, say so at once and in words."""

from __future__ import annotations

import importlib
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

import torch

from labelstore.errors import AnnotatorError
from labelstore.pipelines.annotators.network import in_short
from labelstore.pipelines.annotators.unpickling import tensors_only

CONNECT_TIMEOUT = 5.0  # seconds
NETWORK_LIBRARIES = {"huggingface_hub", "httpx", "httpx2", "requests", "urllib3", "http"}


@contextmanager
def hub_weights(name: str) -> Iterator[None]:
    """Fetch weights from the Hugging Face hub inside; `name` is the model's.

    The hub's client tries an unreachable host again for most of a minute. So ask once first, and let the client look in
    its cache only where nobody answers. Changes a setting of the process while it lasts: not for several threads.

    Raises
    ------
    AnnotatorError
        The weights are in no cache and cannot be downloaded.
    """
    constants: Any = importlib.import_module("huggingface_hub.constants")
    before = constants.HF_HUB_OFFLINE
    unreachable = "HF_HUB_OFFLINE is set" if before else why_unreachable(constants.ENDPOINT)
    constants.HF_HUB_OFFLINE = unreachable is not None
    try:
        with tensors_only():
            yield
    except Exception as error:
        if not _is_network_error(error):
            raise
        raise download_failed(name, constants.ENDPOINT, unreachable or in_short(error), "HF_HOME") from error
    finally:
        constants.HF_HUB_OFFLINE = before


@contextmanager
def url_weights(name: str, url: str) -> Iterator[None]:
    """Fetch weights by `torch.hub` from `url` inside; `name` is the model's.

    Raises
    ------
    AnnotatorError
        The weights are in no cache and cannot be downloaded.
    """
    unreachable = None if is_url_cached(url) else why_unreachable(url)
    if unreachable is not None:
        raise download_failed(name, url, unreachable, "TORCH_HOME")
    try:
        with tensors_only():
            yield
    except Exception as error:
        if not _is_network_error(error):
            raise
        raise download_failed(name, url, in_short(error), "TORCH_HOME") from error


def is_hub_cached(repository: str, filename: str | None = None) -> bool:
    """Whether the hub client's cache holds a model's weights, in `filename` or as safetensors."""
    hub: Any = importlib.import_module("huggingface_hub")
    repository, _, revision = repository.partition("@")
    named = filename or "pytorch_model.bin"
    files = (named, named.replace("pytorch_model.bin", "model.safetensors"), f"{named.removesuffix('.bin')}.safetensors")
    return any(isinstance(hub.try_to_load_from_cache(repository, file, revision=revision or None), str) for file in files)


def is_url_cached(url: str) -> bool:
    """Whether `torch.hub` has downloaded `url` before."""
    return Path(torch.hub.get_dir(), "checkpoints", Path(urlsplit(url).path).name).exists()


def why_unreachable(url: str) -> str | None:
    """Why nobody answers at `url` (proxies are heeded); None if somebody does, with whatever status."""
    try:
        with urlopen(Request(url, method="HEAD"), timeout=CONNECT_TIMEOUT):
            return None
    except HTTPError as answer:
        answer.close()
        return None
    except OSError as error:
        reason = getattr(error, "reason", error)
        # The downloading library may bring certificates of its own: let it try.
        return None if isinstance(reason, ssl.SSLError) else str(reason)
    except HTTPException:
        return None


def download_failed(name: str, url: str, reason: str, cache_variable: str) -> AnnotatorError:
    """An error for weights that cannot be had here, with what to do about it."""
    return AnnotatorError(
        f"the weights of {name} are not in the cache and could not be downloaded from {urlsplit(url).hostname} "
        f"({reason}). Run once with a network, or set {cache_variable} to a filled cache, or use the default "
        "annotator efficientnet-lite0, which ships its weights"
    )


def _is_network_error(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, OSError) or type(error).__module__.partition(".")[0] in NETWORK_LIBRARIES:
            return True
        error = error.__cause__ or error.__context__
    return False
