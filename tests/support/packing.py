"""Images of a folder packed as other sources keep them: tar files and Parquet files."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow
from pyarrow import parquet


def pack_tar(file: Path, members: Mapping[str, bytes]) -> Path:
    """Write a tar file of members."""
    with tarfile.open(file, "w") as tar:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return file


def pack_parquet(
    file: Path,
    images: Mapping[str, bytes],
    labels: Sequence[int] | None = None,
    names: Sequence[str] | None = None,
    rows_a_group: int = 10,
) -> Path:
    """Write images as the `datasets` library does: a struct of bytes and path, and class labels with their names."""
    kind = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    column = pyarrow.array([{"bytes": data, "path": name} for name, data in images.items()], kind)
    columns = {"image": column}
    if labels is not None:
        columns["label"] = pyarrow.array(labels, pyarrow.int64())
    table = pyarrow.table(columns)
    if names is not None:
        features = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": list(names)}}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    parquet.write_table(table, file, row_group_size=rows_a_group)
    return file
