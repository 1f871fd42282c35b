"""A store opened by others: every array by three Zarr libraries, and the recipe of docs/format.md followed on its own."""

from __future__ import annotations

import json
from pathlib import Path

import google_crc32c
import numpy as np
import pytest
import tensorstore
import zarr

from labelstore import LabelMapReader, PendingRowError
from labelstore.errors import FormatError

GOLDEN = Path(__file__).parent.parent / "golden" / "v1-topk.zarr"
SPECTRAL = GOLDEN.with_name("v1-spectral.zarr")
MAPS = {
    GOLDEN: {"classes": ("uint16", (3, 4, 6)), "scores": ("uint8", (3, 4, 6)), "score_range": ("float32", (2,))},
    SPECTRAL: {"spectra": ("uint8", (76,))},
}
WITH_ID = {store: store.with_name(f"{store.stem}-id.zarr") for store in MAPS}
MAPS |= {WITH_ID[store]: arrays for store, arrays in MAPS.items()}
SIZES = GOLDEN.with_name("v1-topk-sizes.zarr")
MAPS[SIZES] = {**MAPS[GOLDEN], "image_size": ("uint32", (2,))}
COMMON = {
    "status": ("uint8", ()),
    "errors": ("uint8", (160,)),
    "targets": ("int32", ()),
    "image_crc32": ("uint32", ()),
    "ids": ("uint8", (8,)),
}


def by_zarr(store: Path, name: str) -> np.ndarray:
    return np.asarray(zarr.open_array(store / name, mode="r")[...])


def by_zarrs(store: Path, name: str) -> np.ndarray:
    with zarr.config.set({"codec_pipeline.path": "zarrs.ZarrsCodecPipeline"}):
        return np.asarray(zarr.open_array(store / name, mode="r")[...])


def by_tensorstore(store: Path, name: str) -> np.ndarray:
    spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(store / name)}}
    return np.asarray(tensorstore.open(spec, read=True).result().read().result())


LIBRARIES = {"zarr": by_zarr, "zarrs": by_zarrs, "tensorstore": by_tensorstore}


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("store", MAPS, ids=lambda store: store.stem)
def test_every_array_opens_and_is_the_same(library, store):
    info = json.loads((store / "zarr.json").read_text())["attributes"]["labelstore"]
    arrays = MAPS[store] | COMMON
    for name, (dtype, row_shape) in arrays.items():
        values = LIBRARIES[library](store, name)
        assert values.dtype == dtype, name
        assert values.shape == (info["num_rows"], *row_shape), name
        np.testing.assert_array_equal(values, by_zarr(store, name))
    rows = len(MAPS[store]) + 3 + (store == SIZES or store in WITH_ID.values())
    assert LIBRARIES[library](store, "commits").shape == (3, rows, 4)
    assert {path.name for path in store.iterdir()} == {*arrays, "commits", "zarr.json"}


@pytest.mark.parametrize("library", LIBRARIES)
def test_the_recipe_gives_what_the_reader_gives(library):
    """docs/format.md, 'Decoding a map', step by step."""
    load, reader = LIBRARIES[library], LabelMapReader(GOLDEN)
    info = json.loads((GOLDEN / "zarr.json").read_text())["attributes"]["labelstore"]
    ids = [bytes(raw).rstrip(b"\0").decode() for raw in load(GOLDEN, "ids")]
    assert ids == list(reader.ids)
    classes, gaps, ranges = (load(GOLDEN, name) for name in ("classes", "scores", "score_range"))
    committed = load(GOLDEN, "commits").any(axis=(1, 2))
    for row in np.flatnonzero(load(GOLDEN, "status") == 1):
        assert committed[row // info["shard_size"]]
        level = np.cumsum(gaps[row].astype(np.int64), axis=0)
        scores = ranges[row, 0] - ranges[row, 1] * level.astype(np.float32)
        found = reader[ids[row]]
        np.testing.assert_array_equal(found.classes, classes[row])
        np.testing.assert_array_equal(found.scores, scores)


@pytest.mark.parametrize("library", LIBRARIES)
def test_pooling_by_hand_gives_what_the_reader_gives(library):
    """docs/format.md, 'Pooling a box': the whole image is the plain mean of the dense map."""
    load, reader = LIBRARIES[library], LabelMapReader(GOLDEN)
    classes, gaps, ranges = (load(GOLDEN, name)[0] for name in ("classes", "scores", "score_range"))
    scores = ranges[0] - ranges[1] * np.cumsum(gaps, axis=0, dtype=np.int64).astype(np.float32)
    logits = np.bincount(classes.ravel(), scores.ravel(), reader.num_classes) / (4 * 6)
    soft = np.exp(logits - logits.max())
    np.testing.assert_allclose(reader.pool([0], [(0, 0, 1, 1)])[0], soft / soft.sum(), atol=1e-6)


@pytest.mark.parametrize("library", LIBRARIES)
def test_the_recipe_of_spectral_maps_gives_what_the_reader_gives(library):
    """docs/format.md, 'Decoding a spectral map', step by step."""
    load, reader = LIBRARIES[library], LabelMapReader(SPECTRAL)
    info = json.loads((SPECTRAL / "zarr.json").read_text())["attributes"]["labelstore"]
    shape, (height, width) = info["spectral"], info["map_size"]
    m, p, r, (kh, kw) = shape["classes"], shape["shaped"], shape["patterns"], shape["frequencies"]
    bits = shape["tail_bits"]
    record = np.dtype(
        [
            ("max", "<f4"),
            ("mean_step", "<f4"),
            ("weight_step", "<f4"),
            ("rest", "<f4", (2**bits,)),
            ("classes", "<u2", (m,)),
            ("means", "u1", (m,)),
            ("weights", "i1", (p, r)),
            ("patterns", "i1", (r, kh, kw)),
            ("tail", "u1", (-(-info["num_classes"] * bits // 8),)),
        ]
    )
    phi_y = np.cos(np.pi * np.arange(kh)[:, None] * (np.arange(height) + 0.5) / height)
    phi_x = np.cos(np.pi * np.arange(kw)[:, None] * (np.arange(width) + 0.5) / width)
    spectra = load(SPECTRAL, "spectra")
    for row in np.flatnonzero(load(SPECTRAL, "status") == 1):
        n = np.frombuffer(spectra[row].tobytes(), record, count=1)[0]
        code = [n["tail"][c * bits // 8] >> c * bits % 8 & 2**bits - 1 for c in range(info["num_classes"])]
        logits = np.tile(n["rest"][code][:, None, None].astype(float), (1, height, width))
        pattern = np.einsum("ruv,uy,vx->ryx", n["patterns"] / 127, phi_y, phi_x)
        maps = np.full((m, height, width), 1.0) * (n["max"] - n["mean_step"] * n["means"].astype(float))[:, None, None]
        maps[:p] += np.einsum("pr,ryx->pyx", n["weight_step"] * n["weights"].astype(float), pattern)
        logits[n["classes"]] = maps
        found = reader[int(row)]
        np.testing.assert_allclose(np.take_along_axis(logits, found.classes.astype(int), 0), found.scores, rtol=1e-5, atol=1e-5)
        mean = np.exp(logits.mean(axis=(1, 2)))
        np.testing.assert_allclose(reader.pool([row], [(0, 0, 1, 1)])[0], mean / mean.sum(), atol=1e-5)


@pytest.mark.parametrize("store", [SPECTRAL, WITH_ID[SPECTRAL]], ids=lambda store: store.stem)
def test_the_golden_spectral_store_reads_as_it_was_written(store):
    reader = LabelMapReader(store)
    assert (len(reader), reader.num_classes, reader.top_k, reader.map_size) == (9, 10, 3, (4, 6))
    assert reader.status().tolist() == [1, 1, 1, 2, 1, 1, 1, 1, 0]
    expected = np.load(store.with_suffix(".npz"))
    done = [0, 1, 2, 4, 5, 6, 7]
    many = reader.read(done)
    np.testing.assert_array_equal(many.classes, expected["classes"])
    np.testing.assert_allclose(many.scores, expected["scores"], rtol=1e-6)
    np.testing.assert_allclose(reader.pool(done, expected["boxes"]), expected["soft"], atol=1e-6)


@pytest.mark.parametrize("store", [GOLDEN, WITH_ID[GOLDEN], SIZES], ids=lambda store: store.stem)
def test_the_golden_store_reads_as_it_was_written(store):
    """Values noted when the store was made (tests/golden/make.py): a reader that changes them breaks users' stores."""
    reader = LabelMapReader(store)
    assert (len(reader), reader.num_classes, reader.top_k, reader.map_size) == (9, 10, 3, (4, 6))
    assert reader.info.shard_size == 4
    assert reader.status().tolist() == [1, 1, 1, 2, 1, 1, 1, 1, 0]
    assert list(reader.ids)[:4] == ["a 1.png", "b/é.png", "c.jpg", "d.jpg"]
    assert reader.error("d.jpg") == "cannot be decoded: noted by hand"
    assert reader.targets.tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8]
    expected = np.load(store.with_suffix(".npz"))
    done = [0, 1, 2, 4, 5, 6, 7]
    many = reader.read(done)
    np.testing.assert_array_equal(many.classes, expected["classes"])
    np.testing.assert_array_equal(many.scores, expected["scores"])
    np.testing.assert_allclose(reader.pool(done, expected["boxes"]), expected["soft"], atol=1e-6)


@pytest.mark.parametrize("store", WITH_ID.values(), ids=lambda store: store.stem)
def test_a_commit_says_of_which_store_and_of_which_images_it_is(store):
    """The last row, as docs/format.md has it: the id's halves, the crc32c of the ids, each padded to the longest, and 0."""
    own = json.loads((store / "zarr.json").read_text())["attributes"]["labelstore"]
    commits, ids = by_zarr(store, "commits"), by_zarr(store, "ids")
    for shard in (0, 1):
        rows = [row.tobytes().rstrip(b"\0") for row in ids[4 * shard : 4 * shard + 4]]
        padded = b"".join(row.ljust(max(map(len, rows)), b"\0") for row in rows)
        *halves, crc32c, nothing = commits[shard, -1].tolist()
        assert (halves[0] << 64) + halves[1] == int(own["store_id"], 16)
        assert (crc32c, nothing) == (google_crc32c.value(padded), 0)
    assert not commits[2].any()


@pytest.mark.parametrize("library", LIBRARIES)
def test_image_sizes_are_widths_and_heights_whatever_reads_them(library):
    """As tests/golden/make.py has them; the first is not known, row 3 failed, and the last shard is pending."""
    expected = [[0, 0], [101, 65534], [102, 65533], [0, 0], *([100 + row, 65535 - row] for row in range(4, 8))]
    assert LIBRARIES[library](SIZES, "image_size")[:8].tolist() == expected
    reader = LabelMapReader(SIZES)
    sizes = reader.image_size(list(range(8)))
    assert (sizes.dtype, sizes.tolist()) == (np.uint32, expected)
    with pytest.raises(PendingRowError, match="row 8"):
        reader.image_size([1, 8])


@pytest.mark.parametrize("store", MAPS.keys() - {SIZES}, ids=lambda store: store.stem)
def test_a_store_without_image_sizes_says_so(store):
    reader = LabelMapReader(store)
    assert not reader.info.image_sizes
    with pytest.raises(
        FormatError, match=f"{store.name}: expected a store that keeps image sizes .*found one without the array"
    ):
        reader.image_size([0])
