"""Batch normalisation folded into the convolutions before it: the same logits in fewer passes over the feature maps.

Which norm follows which convolution is seen on a probe batch; whether nothing else has read the convolution's output is seen by
comparing the logits before and after. Where they differ, everything is put back.
"""

from __future__ import annotations

import functools
import weakref
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from labelstore.pipelines.annotators.dense import relative_error

Pair = tuple[nn.Conv2d, nn.BatchNorm2d]


def fold_norms(module: nn.Module, run: Callable[[], Tensor], tolerance: float) -> int:
    """Fold what can be folded; return how many norms.

    Parameters
    ----------
    module
        In eval mode; changed in place.
    run
        Runs the network on a probe batch, for what must stay as it is.
    tolerance
        Largest change, relative to the largest value.
    """
    found: list[Pair] = []
    before = _watched(module, run, found)
    undo: list[Callable[[], None]] = []
    for convolution, norm in found:
        undo += [*_fold(convolution, norm), *_replace(module, norm)]
    if found and not _same(run, before, tolerance):
        for step in reversed(undo):
            step()
        return 0
    return len(found)


def _watched(module: nn.Module, run: Callable[[], Tensor], found: list[Pair]) -> Tensor:
    """Run, and collect norms that read a convolution's output. Both must run once, and be of kinds that can be folded."""
    made: dict[int, tuple[nn.Conv2d, weakref.ref[Tensor]]] = {}
    pairs: list[Pair] = []
    calls: Counter[nn.Module] = Counter()

    def after_convolution(layer: nn.Module, _: Any, output: Any) -> None:
        calls[layer] += 1
        if isinstance(layer, nn.Conv2d) and isinstance(output, Tensor):
            made[id(output)] = (layer, weakref.ref(output))

    def before_norm(layer: nn.Module, inputs: Any) -> None:
        calls[layer] += 1
        convolution, output = made.get(id(inputs[0]), (None, None)) if inputs else (None, None)
        if convolution is not None and output is not None and output() is inputs[0] and isinstance(layer, nn.BatchNorm2d):
            pairs.append((convolution, layer))

    hooks = [layer.register_forward_hook(after_convolution) for layer in module.modules() if isinstance(layer, nn.Conv2d)]
    hooks += [layer.register_forward_pre_hook(before_norm) for layer in module.modules() if isinstance(layer, nn.BatchNorm2d)]
    try:
        output = run()
    finally:
        for hook in hooks:
            hook.remove()
    found += [pair for pair in pairs if calls[pair[0]] == calls[pair[1]] == 1 and pair[1].running_mean is not None]
    return output


def _fold(convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> list[Callable[[], None]]:
    old = convolution.weight, convolution.bias
    strides = torch.channels_last if old[0].is_contiguous(memory_format=torch.channels_last) else torch.contiguous_format
    fuse: Any = fuse_conv_bn_weights  # typed for norms that always have statistics and weights
    with torch.inference_mode(False):  # weights, not intermediate results
        weight, bias = fuse(*old, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias)
        weight = nn.Parameter(weight.to(memory_format=strides), requires_grad=False)
        bias = nn.Parameter(bias, requires_grad=False)

    def put(weight: Any, bias: Any) -> None:
        convolution.weight, convolution.bias = weight, bias

    put(weight, bias)
    return [functools.partial(put, *old)]


def _replace(module: nn.Module, norm: nn.BatchNorm2d) -> list[Callable[[], None]]:
    """Put in a norm's places what it does besides: some norms are followed by layers of their own (an activation)."""
    inner = [layer for layer in norm.children() if not isinstance(layer, nn.Identity)]
    rest = nn.Sequential(*inner) if inner else nn.Identity()
    undo: list[Callable[[], None]] = []
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if child is norm:
                setattr(parent, name, rest)
                undo.append(functools.partial(setattr, parent, name, norm))
    return undo


def _same(run: Callable[[], Tensor], before: Tensor, tolerance: float) -> bool:
    try:
        after = run()
    except Exception:  # a network that looks into its norms
        return False
    return after.shape == before.shape and relative_error(after, before) <= tolerance
