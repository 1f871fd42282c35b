"""The training side, for PyTorch: boxes of random crops, soft labels on any device, data sets that yield them.

`SoftLabelDataset` wraps a data set and the transform that you have; `follow` is the part of it that keeps track of the crop's
box. `pool` makes soft labels and token labels where the model is.
"""

from labelstore.class_map import match_classes
from labelstore.class_map_file import read_class_map
from labelstore.torch.augment import without_geometry
from labelstore.torch.dataset import SoftLabelDataset
from labelstore.torch.follow import FollowedTransform, follow
from labelstore.torch.images import ImageLoader, load_upright, loader_for
from labelstore.torch.mixing import SoftMixup
from labelstore.torch.pooling import pool, pool_logits
from labelstore.torch.region import CropBox
from labelstore.torch.sparse import SparseLabels, soft_cross_entropy, sparsify

__all__ = [
    "CropBox",
    "FollowedTransform",
    "ImageLoader",
    "SoftLabelDataset",
    "SoftMixup",
    "SparseLabels",
    "follow",
    "load_upright",
    "loader_for",
    "match_classes",
    "pool",
    "pool_logits",
    "read_class_map",
    "soft_cross_entropy",
    "sparsify",
    "without_geometry",
]
