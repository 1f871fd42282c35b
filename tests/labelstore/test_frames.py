"""zstd frames: decoded in batches and by threads as one by one; nothing passes without a checksum that holds."""

from __future__ import annotations

import numpy as np
import pytest
import zstandard

from labelstore.storage import frames as module
from labelstore.storage.frames import FrameError, decode_frame, decode_frames

SIZES = (1, 255, 256, 2250, 65791, 65792, 70000)


def compress(data: bytes, **options: bool) -> bytes:
    return zstandard.ZstdCompressor(level=5, **{"write_checksum": True, **options}).compress(data)


def contents(size: int, count: int) -> list[bytes]:
    rng = np.random.default_rng(size)
    return [rng.integers(0, 30, size, np.uint8).tobytes() for _ in range(count)]


@pytest.mark.parametrize("size", SIZES)
def test_our_frames_start_as_expected(size):
    data = contents(size, 1)[0]
    assert compress(data).startswith(module._usual_header(size))
    assert decode_frame(compress(data), size) == data


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("count", [0, 1, 5, 64, 130])
def test_batches_are_their_frames_one_after_the_other(threads, count, monkeypatch):
    monkeypatch.setattr(module, "_WORTH_A_THREAD", 2)
    batches = [(contents(size, count), size) for size in (2250, 1125)]
    found = decode_frames([([compress(data) for data in mine], size) for mine, size in batches], threads)
    assert [bytes(part) for part in found] == [b"".join(mine) for mine, _ in batches]
    assert np.frombuffer(found[0], np.uint8).flags.writeable


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("place", [0, 7, 19])
def test_one_damaged_frame_spoils_its_batch(threads, place, monkeypatch):
    monkeypatch.setattr(module, "_WORTH_A_THREAD", 2)
    made = [compress(data) for data in contents(500, 20)]
    broken = bytearray(made[place])
    broken[-1] ^= 1
    made[place] = bytes(broken)
    with pytest.raises(FrameError):
        decode_frames([(made, 500)], threads)


def test_frames_of_other_writers_are_read_if_they_say_size_and_checksum():
    data = contents(500, 3)
    writer = zstandard.ZstdCompressor(level=1, write_checksum=True).compressobj(size=500)
    streamed = writer.compress(data[0]) + writer.flush()
    mixed = [streamed, compress(data[1]), compress(data[2])]
    assert bytes(decode_frames([(mixed, 500)], 2)[0]) == b"".join(data)


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        b"no frame at all",
        compress(b"x" * 500, write_checksum=False),
        compress(b"x" * 500, write_content_size=False),
        compress(b"x" * 499),
        compress(b"x" * 501),
        compress(b"x" * 500)[:-1],
    ],
)
def test_other_frames_are_refused(frame):
    with pytest.raises(FrameError):
        decode_frame(frame, 500)
    with pytest.raises(FrameError):
        decode_frames([([compress(b"y" * 500), frame], 500)])
