"""A run's state after an epoch, in one file: written whole or not at all, read without unpickling anything but tensors."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

import torch

_FREE = ("out", "workers", "epochs_done", "evaluate_every")
"""Options that a run may change when it goes on."""


class Checkpoint:
    """The state of what has ``state_dict`` and ``load_state_dict``, by name, under the options of the run.

    Parameters
    ----------
    file
        Where it lies.
    given
        The run's options: a file that was written under others is refused.
    """

    def __init__(self, file: Path, given: Namespace, **parts: Any) -> None:
        self._file, self._parts = file, {name: part for name, part in parts.items() if part is not None}
        self._options = {name: str(value) for name, value in sorted(vars(given).items()) if name not in _FREE}

    def load(self) -> int:
        """Load what is there, and return the epochs that are done; 0 if nothing is."""
        if not self._file.exists():
            return 0
        found = torch.load(self._file, map_location="cpu", weights_only=True)
        differ = [name for name, value in self._options.items() if found["options"].get(name) != value]
        if differ:
            were = ", ".join(f"{name} {self._options[name]} (was {found['options'].get(name)})" for name in differ)
            raise SystemExit(f"{self._file}: a run with other options: {were}. Choose another --out")
        for name, part in self._parts.items():
            part.load_state_dict(found[name])
        return int(found["epochs_done"])

    def save(self, epochs_done: int) -> None:
        states = {name: part.state_dict() for name, part in self._parts.items()}
        partial = self._file.with_name(self._file.name + ".partial")
        torch.save({**states, "options": self._options, "epochs_done": epochs_done}, partial)
        partial.replace(self._file)
