"""Which annotators may be loaded because a store names them: those whose loading runs no code but installed packages'."""

from __future__ import annotations

import re

from labelstore.pipelines.annotators.spec import PROGRAM_SUFFIXES

_PLAIN = re.compile(r"((timm|torchvision):)?[A-Za-z0-9_][A-Za-z0-9_.-]*")


def runs_code(model: str) -> bool:
    """Whether loading a model of this name may run code of a file or module that the name chooses.

    An allow-list: a name of timm's or torchvision's registry, with or without its prefix, runs none; a path, a name with a
    program's ending and ``package.module:factory`` do.
    """
    return _PLAIN.fullmatch(model) is None or model.lower().endswith(PROGRAM_SUFFIXES)
