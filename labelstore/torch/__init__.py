"""The training side, for PyTorch: boxes of random crops, soft labels on any device, data sets that yield them.

`follow` wraps the transforms that you have, so that each image comes with the box of its crop.
"""

from labelstore.torch.augment import without_geometry
from labelstore.torch.follow import FollowedTransform, follow
from labelstore.torch.region import CropBox

__all__ = [
    "CropBox",
    "FollowedTransform",
    "follow",
    "without_geometry",
]
