"""Load an annotator by name: a classifier, made dense and tested on a probe batch."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Callable
from dataclasses import replace
from math import isfinite
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from labelstore.errors import AnnotatorError, MissingExtraError, OptionError
from labelstore.pipelines.annotators import builtin, custom, programs, timm_models, torchvision_models
from labelstore.pipelines.annotators.dense import DenseRoute
from labelstore.pipelines.annotators.network import Network, unknown_name
from labelstore.pipelines.annotators.outputs import in_float32
from labelstore.pipelines.annotators.precision import mixed, prepare_device
from labelstore.pipelines.annotators.probing import Probing, probe
from labelstore.pipelines.annotators.scores import to_logits
from labelstore.pipelines.annotators.spec import PROGRAM_SUFFIXES, AnnotatorInfo, AnnotatorSpec, Preprocessing
from labelstore.units import LOGITS

INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "lanczos")


class Annotator:
    """A classifier that gives logits for the whole image and for every location of its last feature map.

    Made by `load_annotator`. Safe to call from several threads as far as the network itself is; not to be pickled:
    send its `AnnotatorSpec` to other processes.

    Attributes
    ----------
    info : AnnotatorInfo
        What a store records of it, with the preprocessing that batches need.
    device : torch.device
        Where batches must be.
    linear_error : float
        Largest difference between the mean over the locations of `dense` and `whole` on the probe batch, relative to
        the largest logit. Small where the head is linear after average pooling.
    row_error : float
        Likewise for the images' own pooled vectors pushed through the head as rows; NaN for a network with its own
        ``forward_dense``.
    """

    def __init__(
        self,
        info: AnnotatorInfo,
        module: nn.Module,
        route: DenseRoute,
        device: torch.device | str = "cpu",
        precision: str = "float32",
        dense: Callable[[Tensor], Tensor] | None = None,
        makes_logits: bool = False,
    ) -> None:
        self.info = info
        self.device = torch.device(device)
        self.precision = precision
        self.linear_error = route.linear_error
        self.row_error = route.row_error
        self._module = module
        self._dense = dense or route.dense
        self._makes_logits = makes_logits

    @torch.inference_mode()
    def dense(self, batch: Tensor) -> Tensor:
        """Logits at every location, float32 ``[B, C, h, w]`` (strides as they come).

        Parameters
        ----------
        batch
            Preprocessed images, float32 ``[B, 3, S, S]`` on the annotator's device. Not checked.
        """
        with mixed(self.precision, self.device):
            logits = self._dense(batch)
        return to_logits(logits, self.info.scores) if self._makes_logits else logits

    @torch.inference_mode()
    def whole(self, batch: Tensor) -> Tensor:
        """The classifier's own output for a batch as in `dense`, float32 ``[B, C]``."""
        logits: Tensor = self._module(batch)
        logits = (logits.mean((2, 3)) if logits.ndim == 4 else logits).float()
        return to_logits(logits, self.info.scores) if self._makes_logits else logits


def load_annotator(
    spec: AnnotatorSpec, device: torch.device | str = "cpu", precision: str = "float32", *, compiled: bool = False
) -> Annotator:
    """Load the classifier that `spec` names and make it dense.

    Parameters
    ----------
    precision
        What `Annotator.dense` runs in, up to the head; the tests on loading run in float32.
    compiled
        Whether `Annotator.dense` is compiled (at its first batch, which takes minutes for large networks).

    Raises
    ------
    AnnotatorError
        The name is unknown, the weights cannot be had, the model refuses the image size, is no classifier of images, or
        has no per-location head.
    MissingExtraError
        A package that the model needs is not installed; names the extra.
    OptionError
        ``spec.image_size`` is not a positive number, or a program is to be compiled.
    """
    if spec.image_size is not None and spec.image_size < 1:
        raise OptionError(f"expected image_size of at least 1 px, got {spec.image_size}")
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)  # random weights are the same on every worker
        network = _with_choices(build_network(spec), spec)
    if compiled and network.fixed:
        raise OptionError(f"--compile: {network.name} is a program, and runs as it was saved; leave --compile out")
    _check_preprocessing(network)
    digest = network.sha256 or weights_sha256(network.module)
    cast = in_float32(network.module, network.fixed)
    # A mode of a loaded program is its own affair; channels_last is how its input lies anyway, and faster.
    module = network.module if network.fixed else network.module.eval().requires_grad_(False)
    module = module.to(device) if network.fixed else module.to(device).to(memory_format=torch.channels_last)
    prepare_device(torch.device(device), precision)
    own_size = network.preprocessing.input_size
    preprocessing = replace(network.preprocessing, input_size=spec.image_size or own_size)
    _check_patches(network.name, module, preprocessing.input_size, own_size)
    probing = Probing(network.name, preprocessing.input_size, own_size, torch.device(device), network.fixed)
    whole, route, scores = probe(module, probing, spec.scores, spec.recorded)
    one_class = whole.shape[1] == 1
    num_classes = 2 if one_class else whole.shape[1]
    info = AnnotatorInfo(
        name=network.name,
        weights_sha256=digest,
        preprocessing=preprocessing,
        own_input_size=own_size,
        num_classes=num_classes,
        map_size=route.map_size,
        class_names=_fitting(network.name, "class_names", network.class_names, num_classes),
        class_ids=_fitting(network.name, "class_ids", network.class_ids, num_classes),
        scores=scores.record,
        unclear=scores.unclear,
        notes=tuple(filter(None, (cast and f"{network.name}: {cast}", scores.note))),
    )
    dense = torch.compile(route.dense) if compiled else None
    makes_logits = one_class or (scores.record.unit != LOGITS and not scores.record.removed)
    return Annotator(info, module, route, device, "float32" if network.fixed else precision, dense, makes_logits)


def weights_sha256(module: nn.Module) -> str:
    """SHA-256 over the state dict in its order: of each tensor the name, dtype, shape and bytes."""
    digest = hashlib.sha256()
    for name, tensor in module.state_dict().items():
        if isinstance(tensor, Tensor):  # modules may keep extra state of their own
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def build_network(spec: AnnotatorSpec) -> Network:
    """Find the source of the model's name, and let it build the network."""
    source, colon, name = spec.model.partition(":")
    if programs.is_program(spec.model):
        return programs.build(spec)
    if spec.model == builtin.NAME:
        return builtin.build(spec)
    if colon and source == "timm":
        return timm_models.build(name, spec)
    if colon and source == "torchvision":
        return torchvision_models.build(name, spec)
    if colon:
        return custom.build(spec)
    if Path(spec.model).is_file():
        raise AnnotatorError(
            f"annotator {spec.model!r}: expected a program that torch.export (.pt2) or TorchScript (.pt) has saved; "
            "for weights: --model NAME --weights FILE"
        )
    if Path(spec.model).suffix in PROGRAM_SUFFIXES or "/" in spec.model:
        raise AnnotatorError(f"annotator {spec.model!r}: no such file")
    if timm_models.has_model(spec.model):
        return timm_models.build(spec.model, spec)
    if torchvision_models.has_model(spec.model):
        return torchvision_models.build(spec.model, spec)
    raise _unknown_bare_name(spec.model)


def _with_choices(network: Network, spec: AnnotatorSpec) -> Network:
    """Put the user's choices in place of the network's own preprocessing."""
    own = network.preprocessing
    chosen = {"mean": spec.mean, "std": spec.std, "interpolation": spec.interpolation}
    given: dict[str, Any] = {key: value for key, value in chosen.items() if value is not None}
    return replace(network, preprocessing=replace(own, **given)) if given else network


def _unknown_bare_name(name: str) -> AnnotatorError | MissingExtraError:
    try:
        near = timm_models.near_names(name)
    except MissingExtraError as missing:
        return MissingExtraError(f"torchvision has no model {name!r}; if it is timm's: {missing}")
    near = difflib.get_close_matches(name, [builtin.NAME]) + near + torchvision_models.near_names(name)
    return unknown_name(name, "timm or torchvision", near)


def _check_preprocessing(network: Network) -> None:
    """Validate once what every image will go through."""
    given: Preprocessing = network.preprocessing
    triples = all(len(values) == 3 and all(map(isfinite, values)) for values in (given.mean, given.std))
    if not triples or min(given.std) <= 0 or given.input_size < 1 or given.interpolation not in INTERPOLATIONS:
        raise AnnotatorError(
            f"{network.name}: expected preprocessing with an input_size of at least 1, 3 finite means, 3 positive stds "
            f"and an interpolation out of {', '.join(INTERPOLATIONS)}; got {given}"
        )


def _check_patches(name: str, module: nn.Module, size: int, own_size: int) -> None:
    """The map must cover the image: a first layer that cuts it into patches would silently drop a rest at the edges."""
    convolutions = (layer for layer in module.modules() if isinstance(layer, nn.Conv2d) and layer.in_channels == 3)
    first = next(convolutions, None)
    if size == own_size or first is None or first.kernel_size != first.stride or first.padding not in (0, (0, 0)):
        return
    if size % first.stride[0]:
        raise AnnotatorError(
            f"{name} does not take images of {size} px (its own size is {own_size} px): expected a multiple of its "
            f"patches' {first.stride[0]} px, so that its map covers the whole image"
        )


def _fitting(name: str, what: str, labels: tuple[str, ...] | None, num_classes: int) -> tuple[str, ...] | None:
    if labels is not None and len(labels) != num_classes:
        raise AnnotatorError(f"{name}: expected {num_classes} {what}, one a class, got {len(labels)}")
    return labels
