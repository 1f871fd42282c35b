"""What a network's output is: logits, or the probabilities of a softmax or sigmoid, which are made logits again.

Where the last operation of a forward pass is seen to be a softmax or sigmoid, its input is taken instead. Else the values tell
(`labelstore.units`), and a user must say what they are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from labelstore.errors import AnnotatorError
from labelstore.pipelines.annotators.calls import Args, Kwargs, watched
from labelstore.pipelines.annotators.outputs import replace_parts
from labelstore.records import ScoresRecord
from labelstore.units import FLOORS, LOG_SOFTMAX, LOGITS, SIGMOID, SOFTMAX, UNCLEAR, DenseUnit, in_words

_aten: Any = torch.ops.aten
_SOFTMAX = (torch.softmax, Tensor.softmax, functional.softmax, torch.special.softmax, _aten._softmax.default, _aten.softmax.int)
_SIGMOID = (torch.sigmoid, Tensor.sigmoid, functional.sigmoid, torch.special.expit, _aten.sigmoid.default)
_KINDS: dict[Any, str] = {**dict.fromkeys(_SOFTMAX, SOFTMAX), **dict.fromkeys(_SIGMOID, SIGMOID)}


class LastCall:
    """Remembers the last softmax over classes, or sigmoid, of a forward pass. For one pass and one thread."""

    def __init__(self) -> None:
        self._kind = ""
        self._input: Tensor | None = None
        self._output: Tensor | None = None

    def answer(self, func: Any, args: Args, kwargs: Kwargs) -> Any:
        """What a torch call gives, as it is."""
        output = func(*args, **kwargs)
        kind = _KINDS.get(func, "")
        given = args[0] if args else kwargs.get("input")
        if kind and isinstance(given, Tensor) and (kind == SIGMOID or _over_classes(given, args, kwargs)):
            self._kind, self._input, self._output = kind, given, output
        return output

    def made(self, result: Tensor) -> str:
        """Say which of them made the result of the pass: ``softmax``, ``sigmoid`` or ''."""
        made = self._output
        if made is None or made.numel() != result.numel() or made.data_ptr() != result.data_ptr():
            return ""
        return self._kind

    def before(self, result: Tensor) -> Tensor:
        """Return what it was made of, in its shape; the result itself if it was made by nothing of the kind."""
        given = self._input
        return result if given is None or not self.made(result) else given.reshape(result.shape).to(result.dtype)


def _over_classes(given: Tensor, args: Args, kwargs: Kwargs) -> bool:
    dim = args[1] if len(args) > 1 else kwargs.get("dim")
    return isinstance(dim, int) and given.ndim in (2, 4) and dim % given.ndim == 1


def remove_last(module: nn.Module) -> None:
    """Have a network return what its last softmax or sigmoid takes, wherever its result is that one's."""

    def before(method: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any, **named: Any) -> Any:
            last = LastCall()
            with watched(module, last):
                result = method(*arguments, **named)
            return last.before(result) if isinstance(result, Tensor) else result

        return run

    replace_parts(module, before)


@dataclass(frozen=True)
class Scores:
    """What was found of a network's output: what is done with it, whether images must tell more, and what to say."""

    record: ScoresRecord
    unclear: bool = False
    note: str = ""


def find_scores(name: str, asked: str | None, values: Tensor, removed: str) -> Scores:
    """Decide what an output is.

    Parameters
    ----------
    asked
        What the user says: ``logits``, ``probabilities``, or None.
    values
        The output for a probe batch, ``[B, C]`` or ``[B, C, h, w]``.
    removed
        What was taken off its end, if anything was.

    Raises
    ------
    AnnotatorError
        Probabilities, and nobody said so; something else than what was said; one class.
    """
    if values.shape[1] == 1 and asked is None and removed != SIGMOID:
        raise AnnotatorError(
            f"{name} has one class, whose probability is always 1. If its output is one logit for yes or no, say --scores "
            "logits, if it is the probability of yes, --scores probabilities: then there are two classes, no and yes"
        )
    if asked == "logits":
        return Scores(ScoresRecord())
    test = DenseUnit()
    test.add(values.float().cpu().numpy())
    unit = test.verdict() if values.shape[1] > 1 else UNCLEAR if 0 <= test.low <= test.high <= 1 else LOGITS
    if removed:
        if unit in (SOFTMAX, SIGMOID):
            raise AnnotatorError(f"{name}: without its last {removed} it still gives {in_words(unit)}: {_CHOOSE}")
        return Scores(ScoresRecord(removed, removed=True), note=f"{name} ends in a {removed}, which was taken off")
    if asked == "probabilities":
        return Scores(_as_probabilities(name, unit, test))
    if unit in (SOFTMAX, SIGMOID):
        raise AnnotatorError(f"{name}: expected logits, got {in_words(unit)}: {_CHOOSE}")
    note = f"{name} gives {in_words(unit)}, which are right as they are" if unit == LOG_SOFTMAX else ""
    return Scores(ScoresRecord(LOG_SOFTMAX if unit == LOG_SOFTMAX else LOGITS), unit == UNCLEAR, note)


_CHOOSE = "labels of them would be next to uniform. Say --scores probabilities, or --scores logits if they are logits after all"


def _as_probabilities(name: str, unit: str, test: DenseUnit) -> ScoresRecord:
    if unit == LOG_SOFTMAX:
        return ScoresRecord(LOG_SOFTMAX)
    if unit == LOGITS:
        raise AnnotatorError(
            f"{name}: --scores probabilities: expected values in 0..1, got {test.low:.4g}..{test.high:.4g}; are they logits?"
        )
    unit = SIGMOID if unit == UNCLEAR else unit
    return ScoresRecord(unit, floor=FLOORS[unit])


def _centred(logs: Tensor) -> Tensor:
    """Mean 0 over classes at every location: by baseline ``zero`` classes that are not kept count as 0."""
    return logs - logs.mean(dim=1, keepdim=True)


def to_logits(values: Tensor, record: ScoresRecord) -> Tensor:
    """Return logits ``[B, C, ...]`` of an output, with two classes of one."""
    if record.floor is not None and not record.removed:
        exact = values.double()
        logs = exact.clamp_min(record.floor).log()
        if record.unit == SIGMOID:
            logs = logs - (1 - exact).clamp_min(record.floor).log()
        values = (logs if record.unit == SIGMOID else _centred(logs)).float()
    elif record.unit == LOG_SOFTMAX:
        values = _centred(values)
    return torch.cat([torch.zeros_like(values), values], dim=1) if values.shape[1] == 1 else values
