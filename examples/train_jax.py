"""JAX on soft labels: the reader alone, arrays are NumPy's. No PyTorch is imported.

labelstore annotate && python examples/train_jax.py [STORE] [IMAGES]     (pip install 'labelstore[jax]')
"""

from __future__ import annotations

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from labelstore import LabelMapReader

SIZE, BATCH = 32, 6
Parameters = dict[str, jax.Array]


def random_box(rng: np.random.Generator) -> NDArray[np.float64]:
    """(x1, y1, x2, y2), fractions of the image: a quarter of it to all of it, mirrored every other time."""
    width, height = rng.uniform(0.5, 1.0, 2)
    left, top = rng.uniform(0, 1 - width), rng.uniform(0, 1 - height)
    x1, x2 = (left, left + width) if rng.random() < 0.5 else (left + width, left)
    return np.array([x1, top, x2, top + height])


def crop(image: Image.Image, box: NDArray[np.float64]) -> NDArray[np.float32]:
    x1, y1, x2, y2 = box * ([image.width, image.height] * 2)
    part = image.resize((SIZE, SIZE), Image.Resampling.BILINEAR, (min(x1, x2), y1, max(x1, x2), y2))
    pixels = np.asarray(part, np.float32) / 255 - 0.5
    return pixels[:, ::-1] if x1 > x2 else pixels


def predict(parameters: Parameters, images: jax.Array) -> jax.Array:
    patches = jax.lax.conv_general_dilated(
        images, parameters["patch"], (8, 8), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    return jax.nn.relu(patches).mean(axis=(1, 2)) @ parameters["head"]


@jax.jit
def step(parameters: Parameters, images: jax.Array, soft: jax.Array) -> tuple[Parameters, jax.Array]:
    def loss_of(parameters: Parameters) -> jax.Array:
        return -(soft * jax.nn.log_softmax(predict(parameters, images))).sum(axis=-1).mean()

    loss, slopes = jax.value_and_grad(loss_of)(parameters)
    return jax.tree.map(lambda value, slope: value - 0.5 * slope, parameters, slopes), loss


def train(store: str, images: Path, epochs: int = 3) -> list[float]:
    """Return the mean loss of each epoch."""
    rng, reader = np.random.default_rng(0), LabelMapReader(store)
    photos = [Image.open(images / key).convert("RGB") for key in reader.ids]
    first, second = jax.random.split(jax.random.key(0))
    parameters = {
        "patch": 0.05 * jax.random.normal(first, (8, 8, 3, 64)),
        "head": 0.05 * jax.random.normal(second, (64, reader.num_classes)),
    }
    losses = []
    for epoch in range(epochs):
        seen = []
        for rows in np.array_split(rng.permutation(len(reader)), max(len(reader) // BATCH, 1)):
            boxes = np.stack([random_box(rng) for _ in rows])
            inputs = np.stack([crop(photos[row], box) for row, box in zip(rows, boxes, strict=True)])
            soft = reader.pool(rows, boxes)  # (+) float32 [B, C]
            parameters, loss = step(parameters, jnp.asarray(inputs), jnp.asarray(soft))
            seen.append(float(loss))
        losses.append(float(np.mean(seen)))
        print(f"epoch {epoch + 1}: loss {losses[-1]:.3f}")
    return losses


if __name__ == "__main__":
    arguments = sys.argv[1:] + ["labels.zarr", "labelstore-samples"][len(sys.argv) - 1 :]
    train(arguments[0], Path(arguments[1]))
