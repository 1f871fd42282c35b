"""Weights without a network: an error in words at once, or the cache. Nothing here reaches a network."""

from __future__ import annotations

import io
import logging
import socket
import ssl
import time
from email.message import Message
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError

import huggingface_hub.constants
import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file

from labelstore.errors import AnnotatorError
from labelstore.pipelines.annotators import AnnotatorSpec, fetching, load_annotator

NO_NAME = URLError(socket.gaierror(-2, "Name or service not known"))
SMALL_TIMM = "timm:test_resnet.r160_in1k"
SMALL_TORCHVISION = "torchvision:squeezenet1_1"


@pytest.fixture
def answer(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A function that sets what asking any host gives."""

    def set_answer(error: Exception) -> None:
        def refuse(*_: Any, **__: Any) -> None:
            raise error

        monkeypatch.setattr(fetching, "urlopen", refuse)

    return set_answer


@pytest.fixture
def offline(answer: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """No host is known, and the caches are empty; gives their folder."""
    answer(NO_NAME)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path


@pytest.mark.parametrize(
    ("model", "host", "variable"),
    [(SMALL_TIMM, "huggingface.co", "HF_HOME"), (SMALL_TORCHVISION, "download.pytorch.org", "TORCH_HOME")],
)
def test_no_network_and_no_cache(offline: Path, caplog: pytest.LogCaptureFixture, model: str, host: str, variable: str) -> None:
    start = time.monotonic()
    with caplog.at_level(logging.WARNING), pytest.raises(AnnotatorError) as caught:
        load_annotator(AnnotatorSpec(model))
    message = str(caught.value)
    for part in (model, host, "Name or service not known", variable, "efficientnet-lite0, which ships its weights"):
        assert part in message
    assert time.monotonic() - start < 10  # no minute of retries
    assert not caplog.records
    assert not [path for path in offline.rglob("*") if path.is_file()]
    assert not huggingface_hub.constants.HF_HUB_OFFLINE


def test_filled_torch_cache_needs_no_network(offline: Path) -> None:
    weights = torchvision.models.get_model_weights("squeezenet1_1").DEFAULT
    cached = offline / "torch" / "hub" / "checkpoints" / Path(weights.url).name
    cached.parent.mkdir(parents=True)
    torch.save(torchvision.models.squeezenet1_1().state_dict(), cached)
    annotator = load_annotator(AnnotatorSpec(SMALL_TORCHVISION, image_size=64))
    assert annotator.info.name == SMALL_TORCHVISION


@pytest.mark.parametrize(("name", "size", "grid"), [("test_resnet", 160, 5), ("test_vit", 160, 10), ("test_vit", 96, 6)])
def test_filled_hub_cache_needs_no_network(offline: Path, name: str, size: int, grid: int) -> None:
    repository = offline / "hub" / f"models--timm--{name}.r160_in1k"
    snapshot = repository / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0" * 40)
    save_file(timm.create_model(name).state_dict(), str(snapshot / "model.safetensors"))
    info = load_annotator(AnnotatorSpec(name, image_size=size)).info
    assert info.name == f"timm:{name}.r160_in1k"
    assert (info.own_input_size, info.preprocessing.input_size, info.map_size) == (160, size, (grid, grid))


class Bomb:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return Path.touch, (self.file,)


def test_a_checkpoint_in_the_cache_is_not_unpickled(offline: Path) -> None:
    """`torch.hub` unpickles whatever lies there under the right name."""
    weights = torchvision.models.get_model_weights("squeezenet1_1").DEFAULT
    cached = offline / "torch" / "hub" / "checkpoints" / Path(weights.url).name
    cached.parent.mkdir(parents=True)
    torch.save({**torchvision.models.squeezenet1_1().state_dict(), "more": Bomb(offline / "ran")}, cached)
    with pytest.raises(AnnotatorError, match="failed to load"):
        load_annotator(AnnotatorSpec(SMALL_TORCHVISION, image_size=64))
    assert not (offline / "ran").exists()
    torch.hub.load_state_dict_from_url(weights.url)
    assert (offline / "ran").exists()


def test_cut_off_while_downloading(answer: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    answer(HTTPError("https://x.org", 403, "Forbidden", Message(), io.BytesIO()))  # somebody answers
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))

    def cut_off(*_: Any, **__: Any) -> None:
        raise ConnectionResetError("Connection reset by peer")

    monkeypatch.setattr(torchvision.models, "get_model", cut_off)
    with pytest.raises(AnnotatorError, match=r"could not be downloaded .*ConnectionResetError: Connection reset"):
        load_annotator(AnnotatorSpec(SMALL_TORCHVISION))


def test_other_errors_are_not_called_network_errors(offline: Path) -> None:
    weights = torchvision.models.get_model_weights("squeezenet1_1").DEFAULT
    cached = offline / "torch" / "hub" / "checkpoints" / Path(weights.url).name
    cached.parent.mkdir(parents=True)
    torch.save({"features.0.weight": torch.zeros(1)}, cached)
    with pytest.raises(AnnotatorError, match=r"squeezenet1_1 failed to load: RuntimeError: Error"):
        load_annotator(AnnotatorSpec(SMALL_TORCHVISION))


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (NO_NAME, "[Errno -2] Name or service not known"),
        (URLError(TimeoutError("timed out")), "timed out"),
        (TimeoutError("timed out"), "timed out"),
        (URLError(ssl.SSLCertVerificationError("own certificates")), None),
        (HTTPError("https://x.org", 404, "Not Found", Message(), io.BytesIO()), None),
    ],
)
def test_who_is_reachable(answer: Any, error: Exception, reason: str | None) -> None:
    answer(error)
    assert fetching.why_unreachable("https://x.org") == reason
