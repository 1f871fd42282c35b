"""Annotators out of a file: programs that `torch.export` (.pt2) or TorchScript (.pt, .ts) has saved.

A program is code: run those of people whom you trust. Python objects and compiled libraries in the file are never loaded.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from labelstore.errors import AnnotatorError
from labelstore.pipelines.annotators.custom import IMAGENET
from labelstore.pipelines.annotators.network import Network, in_short
from labelstore.pipelines.annotators.spec import PROGRAM_SUFFIXES, AnnotatorSpec, Preprocessing
from labelstore.pipelines.annotators.unpickling import tensors_only

EXTRA_FILE = "labelstore.json"
"""A file inside the program's, as both formats allow: preprocessing and class names."""
_jit: Any = torch.jit
_CODE = {
    "data/aotinductor/": "a compiled library",
    "data/constants/opaque_obj_": "pickled objects",
    "data/constants/custom_obj_": "pickled objects",
}
"""What torch.export.load would run or unpickle, by the names that it has in the file."""
_KEYS = ("input_size", "mean", "std", "interpolation", "class_names", "class_ids")


def is_program(model: str) -> bool:
    """Whether a model's name is that of a file with a program."""
    return Path(model).suffix in PROGRAM_SUFFIXES and Path(model).is_file()


def build(spec: AnnotatorSpec) -> Network:
    """Load a program, from images ``[B, 3, S, S]`` to logits of every location, ``[B, C, h, w]``, or of images, ``[B, C]``.

    Its extra file ``labelstore.json`` may hold ``input_size``, ``mean``, ``std``, ``interpolation``, ``class_names`` and
    ``class_ids``. Without it: the size that it was exported for, else 224 px, ImageNet's mean and std, bilinear.

    Raises
    ------
    AnnotatorError
        The file is not the one of ``spec.sha256``, cannot be loaded, or holds more than a program and tensors.
    """
    if spec.weights is not None:
        raise AnnotatorError(f"--weights {spec.weights}: {spec.model} has its weights inside; leave --weights out")
    path = os.path.realpath(spec.model)
    sha256 = _checked_sha256(path, spec)  # loading may run code
    extra: dict[str, Any] = {EXTRA_FILE: ""}
    load = _load_exported if path.endswith(".pt2") else _load_scripted
    try:
        module, size = load(path, extra)
    except AnnotatorError:
        raise
    except Exception as error:  # what the loaders raise on a broken file is theirs
        hint = "; if these are weights: --model NAME --weights FILE" if "constants.pkl" in str(error) else ""
        raise AnnotatorError(f"{spec.model}: cannot be loaded as a program: {in_short(error)}{hint}") from error
    said = _said(spec.model, extra[EXTRA_FILE])
    try:
        how = Preprocessing(
            input_size=int(said.get("input_size") or size or IMAGENET.input_size),
            mean=_triple(said.get("mean", IMAGENET.mean)),
            std=_triple(said.get("std", IMAGENET.std)),
            interpolation=str(said.get("interpolation", IMAGENET.interpolation)),
        )
        names, ids = (tuple(map(str, said[key])) if key in said else None for key in ("class_names", "class_ids"))
    except (TypeError, ValueError) as error:
        raise AnnotatorError(f"{spec.model}: {EXTRA_FILE}: {in_short(error)}") from error
    return Network(spec.model, module, how, names, ids, fixed=True, sha256=sha256)


def _checked_sha256(path: str, spec: AnnotatorSpec) -> str:
    """The digest of the whole file: a program may hold its weights as constants of its code."""
    with Path(path).open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if spec.sha256 not in (None, found):
        raise AnnotatorError(
            f"{spec.model}: expected the program that the store was begun with (sha256 {spec.sha256}), found another (sha256 "
            f"{found}); it was not loaded"
        )
    return found


def _triple(values: Any) -> tuple[float, float, float]:
    red, green, blue = map(float, values)
    return red, green, blue


def _said(model: str, text: str | bytes) -> Mapping[str, Any]:
    if not text:
        return {}
    try:
        said = json.loads(text)
    except ValueError as error:
        raise AnnotatorError(f"{model}: {EXTRA_FILE}: expected JSON: {error}") from error
    if not isinstance(said, dict) or set(said) - set(_KEYS):
        raise AnnotatorError(f"{model}: {EXTRA_FILE}: expected an object with keys out of {', '.join(_KEYS)}")
    return said


def _load_scripted(path: str, extra: dict[str, Any]) -> tuple[nn.Module, int | None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`torch.jit.load`", FutureWarning)  # whoever has such a file knows
        module: nn.Module = torch.jit.load(path, map_location="cpu", _extra_files=extra)
    return Scripted(module.eval()), None


def _load_exported(path: str, extra: dict[str, Any]) -> tuple[nn.Module, int | None]:
    _refuse_code(path)
    # The loader falls back to unpickling anything; `tensors_only` makes it fail instead.
    logging.getLogger("torch.export").setLevel(logging.CRITICAL)  # it logs tracebacks of what it raises as well
    with tensors_only():
        program = torch.export.load(path, extra_files=extra)
    signature = program.graph_signature
    training = next((node.target for node in program.graph.nodes if _trains(node)), None)
    if training is not None:
        raise AnnotatorError(f"{path}: exported in training mode ({training}): call eval() on the model before")
    values = {node.name: node.meta.get("val") for node in program.graph.nodes}
    images = [values.get(name) for name in signature.user_inputs]
    if len(images) != 1 or not isinstance(images[0], Tensor) or images[0].ndim != 4:
        raise AnnotatorError(f"{path}: expected a program of one input [B, 3, S, S]")
    batch, size = images[0].shape[0], images[0].shape[-1]
    fixed = batch if isinstance(batch, int) else None
    result = values.get(signature.user_outputs[0]) if signature.user_outputs else None
    if fixed is not None and isinstance(result, Tensor) and result.ndim == 2:
        raise AnnotatorError(
            f"{path}: exported for batches of {fixed} exactly, with one label an image: its head cannot be asked of locations. "
            "Export it for any batch, dynamic_shapes=({0: torch.export.Dim('batch')},), or with an output [B, C, h, w]"
        )
    return Exported(program.module(), fixed), size if isinstance(size, int) else None


def _trains(node: Any) -> bool:
    """Whether a step of a program does what it does in training alone: normalise by the batch, drop values."""
    arguments = getattr(getattr(node.target, "_schema", None), "arguments", ())
    given = zip(arguments, node.args, strict=False)  # what has its default is left out
    return any(argument.name in ("training", "train") and value is True for argument, value in given)


def _refuse_code(path: str) -> None:
    reader: Any = torch._C.PyTorchFileReader(path)
    for name in reader.get_all_records():
        if name == "data.pkl":
            raise AnnotatorError(
                f"{path}: expected a program that torch.export has saved, got what torch.save or TorchScript (.pt) saves; if "
                "these are weights: --model NAME --weights FILE"
            )
        found = next((what for start, what in _CODE.items() if name.lower().startswith(start)), None)
        if found is not None:
            raise AnnotatorError(f"{path}: expected a program and tensors, got {found} too ({name}), which could run any code")


class Scripted(nn.Module):
    """A TorchScript program. The JIT's profiling rewrites a program after its first runs: it is run as it was saved."""

    sees_dispatch_only = True

    def __init__(self, program: nn.Module) -> None:
        super().__init__()
        self.program = program

    def forward(self, batch: Tensor) -> Tensor:
        """Run it."""
        with _jit.optimized_execution(False):
            output: Tensor = self.program(batch)
        return output


class Exported(nn.Module):
    """A program of `torch.export`; one that takes so many images only gets as many, the last of them black."""

    sees_dispatch_only = True

    def __init__(self, program: nn.Module, batch_size: int | None) -> None:
        super().__init__()
        self.program = program
        self.batch_size = batch_size

    def forward(self, batch: Tensor) -> Tensor:
        """Run it."""
        if self.batch_size is None:
            whole: Tensor = self.program(batch.contiguous())
            return whole
        outputs = []
        for part in batch.split(self.batch_size):
            missing = self.batch_size - len(part)
            full = torch.cat([part, part.new_zeros(missing, *part.shape[1:])]) if missing else part
            outputs.append(self.program(full.contiguous())[: len(part)])
        return torch.cat(outputs)
