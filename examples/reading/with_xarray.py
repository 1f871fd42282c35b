"""Read a label map with xarray and NumPy alone, without labelstore.

python examples/reading/with_xarray.py labels.zarr chelsea.png        (pip install xarray zarr; a store of encoding topk)
"""

import json
import sys

import numpy as np
import xarray as xr

store, image_id = sys.argv[1:]
labels = xr.open_zarr(store, consolidated=False)
about = labels.attrs["labelstore"]

# Image ids are bytes, padded with zeros; rows are found by comparing them.
ids = labels[about["ids_array"]].values
ids = ids.view(f"S{ids.shape[1]}")[:, 0]
row = int(np.flatnonzero(ids == image_id.encode())[0])
one = labels.isel(row=row)
if one.status != 1:
    sys.exit(f"{image_id} has no map: {bytes(one.errors.values).rstrip(bytes(1)).decode() or 'pending'}")

# Rank gaps to logits (docs/format.md): the first of score_range is the row's best logit, the second a level's height.
top, step = one.score_range.values
scores = top - step * one.scores.astype("int64").cumsum("rank").astype("float32")

likely = one.classes.isel(rank=0)
names = about["class_names"]
classes, counts = np.unique(likely, return_counts=True)
for place in np.argsort(-counts)[:3]:
    name = names[classes[place]] if names else classes[place]
    print(f"{name}: the best of {counts[place]} of {likely.size} locations", file=sys.stderr)
print(json.dumps({"classes": one.classes.values.tolist(), "scores": scores.transpose("rank", "y", "x").values.tolist()}))
