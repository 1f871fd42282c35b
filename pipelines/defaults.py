"""What a new store is, unless the user chooses otherwise."""

MODEL = "efficientnet-lite0"
TOP_K = 5
EXIF = "ignore"
GREY16 = "fail"
DECODER = "pillow"
DECODERS = ("pillow", "nvjpeg")
ENCODING = "spectral"
"""Closer to the annotator at a tenth of the bytes: docs/encodings.md."""
BASELINES = {"topk": "absent_mean", "spectral": "absent_mass"}
CLASSES_PER_IMAGE, PATTERNS, FREQUENCIES = 40, 5, 5
TAIL_BITS, MOST_TAIL_CLASSES = 1, 4096
"""Above so many classes a bit for each takes more than all the rest."""
CPU_BATCH_SIZE = 16
"""Bigger batches are slower on a CPU: their activations leave the caches."""
CUDA_BATCH_SIZE = 64
WORKER_TIMEOUT = 600
"""Seconds without progress."""
