"""Checkpoints are pickles, which can run any code: of those that other libraries load, nothing but tensors is unpickled."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock


@contextmanager
def tensors_only() -> Iterator[None]:
    """Have `torch.load` unpickle tensors only inside, whatever its caller asks for: `torch.hub` asks for more.

    Changes a setting of the process while it lasts: not for several threads.
    """
    with mock.patch.dict(os.environ, {"TORCH_FORCE_WEIGHTS_ONLY_LOAD": "1"}):
        os.environ.pop("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", None)  # torch refuses both at once
        yield
