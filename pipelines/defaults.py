"""What a new store is, unless the user chooses otherwise."""

MODEL = "efficientnet-lite0"
TOP_K = 5
BASELINE = "absent_mean"
EXIF = "ignore"
ENCODING = "topk"
CPU_BATCH_SIZE = 8
"""Bigger batches are no faster on a CPU: their activations leave the caches."""
CUDA_BATCH_SIZE = 64
