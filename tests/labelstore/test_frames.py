"""zstd frames: decoded in batches as one by one; nothing passes without a checksum that holds."""

from __future__ import annotations

import numpy as np
import pytest
import zstandard

from labelstore.storage.frames import FrameError, decode_frame, decode_frames, usual_header

SIZES = (1, 255, 256, 2250, 65791, 65792, 70000)


def compress(data: bytes, **options: bool) -> bytes:
    return zstandard.ZstdCompressor(level=5, **{"write_checksum": True, **options}).compress(data)


def contents(size: int, count: int) -> list[bytes]:
    rng = np.random.default_rng(size)
    return [rng.integers(0, 30, size, np.uint8).tobytes() for _ in range(count)]


def decode_all(frames: list[bytes], size: int) -> bytes:
    room = bytearray(len(frames) * size)
    decode_frames(frames, size, memoryview(room))
    return bytes(room)


@pytest.mark.parametrize("size", SIZES)
def test_our_frames_start_as_expected(size):
    data = contents(size, 1)[0]
    assert compress(data).startswith(usual_header(size))
    assert decode_frame(compress(data), size) == data


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("count", [0, 1, 2, 13])
def test_a_batch_is_its_frames_one_after_the_other(size, count):
    mine = contents(size, count)
    assert decode_all([compress(data) for data in mine], size) == b"".join(mine)


@pytest.mark.parametrize("place", [0, 7, 19])
def test_one_damaged_frame_spoils_its_batch(place):
    made = [compress(data) for data in contents(500, 20)]
    broken = bytearray(made[place])
    broken[-1] ^= 1
    made[place] = bytes(broken)
    with pytest.raises(FrameError):
        decode_all(made, 500)


def test_frames_of_other_writers_are_read_if_they_say_size_and_checksum():
    data = contents(500, 3)
    writer = zstandard.ZstdCompressor(level=1, write_checksum=True).compressobj(size=500)
    streamed = writer.compress(data[0]) + writer.flush()
    mixed = [streamed, compress(data[1]), compress(data[2])]
    assert decode_all(mixed, 500) == b"".join(data)


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
        decode_all([compress(b"y" * 500), frame], 500)
