"""Read label maps with TensorStore and NumPy alone, without labelstore; many at once.

python examples/reading/with_tensorstore.py labels.zarr chelsea.png   (pip install tensorstore; a store of encoding topk)
"""

import json
import sys
from pathlib import Path

import numpy as np
import tensorstore as ts

store, *image_ids = sys.argv[1:]
about = json.loads((Path(store) / "zarr.json").read_text())["attributes"]["labelstore"]


def array(name: str) -> ts.TensorStore:
    """Open an array; it may also lie behind s3:// or gs://, with another kvstore."""
    kvstore = {"driver": "file", "path": f"{Path(store).absolute()}/{name}/"}
    return ts.open({"driver": "zarr3", "kvstore": kvstore}, read=True).result()


ids = np.ascontiguousarray(array(about["ids_array"]).read().result())
ids = ids.view(f"S{ids.shape[1]}")[:, 0]
rows = [int(np.flatnonzero(ids == image_id.encode())[0]) for image_id in image_ids]

# All requests are under way before the first is waited for.
asked = {name: array(name)[rows].read() for name in ("status", "classes", "scores", "score_range")}
found = {name: request.result() for name, request in asked.items()}
if (found["status"] != 1).any():
    sys.exit(f"no map of {[image_id for image_id, good in zip(image_ids, found['status'] == 1, strict=True) if not good]}")

# Rank gaps to logits (docs/format.md): score_range holds each row's best logit, and the height of a level.
levels = np.cumsum(found["scores"].astype(np.int64), axis=1)
top, step = (found["score_range"][:, place, None, None, None] for place in (0, 1))
scores = top - step * levels.astype(np.float32)

print(json.dumps({"classes": found["classes"][0].tolist(), "scores": scores[0].tolist()}))
