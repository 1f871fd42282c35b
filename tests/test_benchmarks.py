"""The benchmarks run, and their tables say what they promise. No time is asserted."""

from __future__ import annotations

import json
import subprocess
import sys
from itertools import count
from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture
def measuring(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import measuring

    monkeypatch.setattr(measuring, "_PAUSE", 0)
    return measuring


@pytest.fixture(scope="module")
def maps(tmp_path_factory) -> Path:
    """Maps wider than high, so that a way that mixes up x and y is found out."""
    rng = np.random.default_rng(0)
    classes = np.argsort(rng.random((40, 1000, 3, 5)), axis=1)[:, :6].astype(np.uint16)
    scores = -np.sort(-rng.normal(0, 3, classes.shape), axis=1).astype(np.float32)
    file = tmp_path_factory.mktemp("maps") / "maps.npz"
    np.savez(file, classes=classes, scores=scores)
    return file


def run(script: str, *options: object, timeout: float = 120) -> str:
    command = [sys.executable, BENCHMARKS / script, *map(str, options)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_every_way_runs_once_unseen_and_then_on_the_items_of_every_round(measuring):
    seen: list[tuple[str, str]] = []
    clock = count()
    ways = {name: lambda item, name=name: seen.append((name, item)) for name in "abc"}
    seconds = measuring.side_by_side(ways, ["xy", "zw"], fewer={"b": 1}, clock=lambda: next(clock))
    assert seconds == {"a": [0.5, 0.5], "b": [1.0, 1.0], "c": [0.5, 0.5]}
    assert seen[:3] == [("a", "x"), ("b", "x"), ("c", "x")]
    assert seen[3:8] == [("a", "x"), ("a", "y"), ("b", "x"), ("c", "x"), ("c", "y")]
    assert seen[8:] == [("c", "z"), ("c", "w"), ("b", "z"), ("a", "z"), ("a", "w")]


@pytest.mark.parametrize(
    ("bounds", "met", "goal"),
    [
        ({}, None, ""),
        ({"least": 2}, True, ">= 2x"),
        ({"least": 2.1}, False, ">= 2.1x"),
        ({"most": 2}, True, "<= 2x"),
        ({"most": 1.99}, False, "<= 1.99x"),
    ],
)
def test_a_line_holds_its_median_against_its_goal(measuring, bounds, met, goal):
    line = measuring.Line("what", measuring.ratios([2, 6, 2], [2, 3, 1]), **bounds)
    assert (line.measured.median, line.met, line.goal) == (2, met, goal)


def test_the_interval_of_a_median_holds_it_and_shrinks_with_more_values(measuring):
    values = np.random.default_rng(0).normal(1, 0.1, 400).tolist()
    few, many = measuring.median_interval(values[:15]), measuring.median_interval(values)
    for found in (few, many):
        assert found.low <= found.median <= found.high
    assert many.high - many.low < few.high - few.low


def test_reader_speed_checks_all_ways_against_each_other_and_fills_its_table(tmp_path, maps):
    out = run("reader_speed.py", "--maps", maps, "--rows", 200, "--rounds", 1, "--json", tmp_path / "out.json")
    found = json.loads((tmp_path / "out.json").read_text())
    goals = {line["what"]: line["goal"] for line in found["lines"]}
    for keys in ("rows", "ids"):
        assert goals[f"pool by {keys} / reference"] == ">= 50x"
        assert goals[f"pool by {keys}, decoded cache / reference"] == ">= 100x"
        assert goals[f"pool by {keys} / floor"] == ">= 0.6x"
        assert goals[f"read by {keys} / bare decode"] == ">= 0.7x"
    assert all(line["measured"]["median"] > 0 for line in found["lines"])
    assert {"zarr", "tensorstore", "floor, loop", "pool one"} <= set(found["seconds_a_batch"])
    assert all(what in out for what in goals)


def test_a_big_store_is_whole_and_reader_scale_measures_on_it(tmp_path, maps):
    from labelstore import LabelMapReader

    store = tmp_path / "big.zarr"
    run("big_store.py", store, "--rows", 1000, "--maps", maps)
    reader = LabelMapReader(store)
    assert (len(reader), reader.info.num_shards) == (1000, 125)
    assert (reader.status() == 1).all()
    assert list(reader.ids) == sorted(reader.ids)
    rows = np.arange(1000)
    with np.load(maps) as given:
        expected = given["classes"][:, :5][rows % reader.info.shard_size % 40]
    np.testing.assert_array_equal(reader.read(rows).classes, expected)

    run("reader_scale.py", "--store", store, "--runs", 1, "--rounds", 1, "--json", tmp_path / "out.json")
    lines = {line["what"]: line for line in json.loads((tmp_path / "out.json").read_text())["lines"]}
    assert lines["open"]["goal"] == "<= 1 s"
    assert lines["first batch by ids"]["goal"] == "<= 50 ms"
    assert lines["memory after all shards"]["goal"] == "<= 300 MB"
    assert lines["pool, speed on the big store / on a small one"]["goal"] == ">= 0.8x"
    assert lines["a forked child after 50 batches"]["measured"]["median"] > 0


@pytest.fixture(scope="module")
def dense(tmp_path_factory) -> Path:
    """Logits of few images, wider than high."""
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (12, 60, 1, 1)) + rng.normal(0, 1, (12, 60, 4, 6))
    file = tmp_path_factory.mktemp("dense") / "dense.npz"
    np.savez(file, logits=logits.astype(np.float16))
    return file


def test_the_frontier_says_what_every_setting_costs(tmp_path, dense):
    out = run(
        "frontier.py", "--dense", f"few={dense}", "--dense", f"sharp={dense}*2.5", "--crops", 4, "--json", tmp_path / "f.json"
    )
    points = json.loads((tmp_path / "f.json").read_text())
    assert {point["maps"] for point in points} == {"few", "sharp"}
    assert {point["family"] for point in points} == {"reference", "topk", "spectral", "spectral+", "separate"}
    by_setting = {(point["maps"], point["setting"]): point for point in points}
    for maps in ("few", "sharp"):
        assert by_setting[maps, "top 20"]["l1"] < by_setting[maps, "top 1"]["l1"]
        assert by_setting[maps, "M=40, R=4, k=4, b=0"]["kl"] < by_setting[maps, "M=16, R=4, k=4, b=0"]["kl"]
        assert by_setting[maps, "M=16, R=4, k=4, b=1"]["bytes"] > by_setting[maps, "M=16, R=4, k=4, b=0"]["bytes"]
    assert "small crops" in out


def test_spectral_speed_checks_all_ways_against_the_rebuilt_map(tmp_path, dense):
    for bits in (0, 1, 2):
        options = ["--rows", 300, "--rounds", 1, "--tail-bits", bits, "--json", tmp_path / "s.json"]
        run("spectral_speed.py", "--dense", dense, *options)
        goals = {line["what"]: line["goal"] for line in json.loads((tmp_path / "s.json").read_text())["lines"]}
        assert goals["pool by rows / reference"] == ">= 200x"
        assert goals["pool by ids / floor"] == ">= 0.5x"


def test_a_big_spectral_store_is_whole(tmp_path, dense):
    from labelstore import LabelMapReader

    run("big_store.py", tmp_path / "b.zarr", "--rows", 1000, "--encoding", "spectral", "--shape", 8, 3, 3, 1, "--dense", dense)
    reader = LabelMapReader(tmp_path / "b.zarr")
    assert (reader.status() == 1).all()
    assert reader.info.spectral.tail_bits == 1
    size = reader.info.shard_size  # every shard holds the 12 maps, over and over
    same = reader.pool([0, size, 5 * size], [(0.1, 0.2, 0.7, 0.8)] * 3)
    np.testing.assert_array_equal(same[1:], same[:1].repeat(2, 0))
    np.testing.assert_allclose(same.sum(axis=1), 1, atol=1e-5)


@pytest.mark.slow
def test_kills_and_damage_lose_nothing(tmp_path):
    out = run("soak.py", "--short", "--only", "kills", "damage", "--seed", 4, "--json", tmp_path / "out.json", timeout=600)
    assert "problems: 0" in out.splitlines()
    found = json.loads((tmp_path / "out.json").read_text())
    assert {kill["kind"] for kill in found["kills"]["kills"]} >= {"worker", "client"}
    assert not any(found["kills"]["committed_again"].values())
    assert found["damage"]["done"] == found["damage"]["found"] == found["damage"]["mended"]


@pytest.mark.slow
def test_a_short_soak_finds_nothing(tmp_path):
    out = run("soak.py", "--short", "--seed", 3, "--json", tmp_path / "out.json", timeout=600)
    assert "problems: 0" in out.splitlines()
    found = json.loads((tmp_path / "out.json").read_text())
    assert {(kill["kind"], kill["setup"]) for kill in found["kills"]["kills"]} >= {
        ("worker", "one command"),
        ("client", "one command"),
    }
    damages = found["damage"]
    assert damages["done"] == damages["found"] == damages["mended"]
    assert sum(damages["done"].values()) > 100
    assert [peak["what"] for peak in found["memory"]] == ["toy", "toy", "efficientnet-lite0"]


def test_annotating_on_a_gpu_is_measured_with_torch_and_timm_alone(tmp_path):
    """On the CPU, where figures mean nothing: what a bare machine lacks cannot be imported."""
    lacking = "zarr", "dask", "distributed", "numcodecs", "zstandard", "google_crc32c", "fsspec", "click", "rich", "skimage"
    options = ["--device", "cpu", "--models", "timm:test_resnet@64", "--images", 16, "--batch-size", 8, "--rounds", 1]
    options += ["--json", tmp_path / "out.json"]
    code = f"""import runpy, sys
for name in {lacking}: sys.modules[name] = None
sys.argv[1:] = {[*map(str, options)]}
sys.path.insert(0, {str(BENCHMARKS)!r})
runpy.run_path({str(BENCHMARKS / "gpu_annotate.py")!r}, run_name="__main__")"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "out.json").read_text())
    rates = found["details"]["timm:test_resnet@64"]["images_per_second"]
    assert {"bare forward", "dense forward", "load files", "shard task, pillow"} == set(rates)
    assert all(rate > 0 for rate in rates.values())
    assert found["lines"][0]["what"] == "timm:test_resnet@64, pillow / bare"
    assert "where a shard task's time goes" in done.stdout


@pytest.mark.parametrize("script", ["gpu_annotate.py", "gpu_pooling.py"])
def test_what_needs_a_gpu_says_so_where_there_is_none(script):
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("there is one")
    done = subprocess.run([sys.executable, BENCHMARKS / script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert "no CUDA device: nothing measured" in done.stderr


@pytest.mark.slow
def test_importing_is_measured_against_a_bare_loop(tmp_path, maps):
    run("importing.py", "--maps", maps, "--files", 60, "--converted", 20, "--rounds", 1, "--json", tmp_path / "out.json")
    found = json.loads((tmp_path / "out.json").read_text())
    measured = {line["what"]: line["measured"]["median"] for line in found["lines"]}
    assert found["files"] == 60
    assert found["converted"] == 20
    assert measured["files/s, import / torch.load, one process"] > 0
    assert measured["bytes a file"] > measured["bytes a map"] * 0.5


def test_the_viewer_is_measured_on_a_store(tmp_path, dense):
    run("big_store.py", tmp_path / "b.zarr", "--rows", 1000, "--encoding", "spectral", "--shape", 8, 3, 3, 1, "--dense", dense)
    out = run("view_scale.py", "--store", tmp_path / "b.zarr", "--rounds", 1, "--json", tmp_path / "v.json")
    goals = {line["what"]: line["goal"] for line in json.loads((tmp_path / "v.json").read_text())["lines"]}
    assert goals["soft labels a second, raw"] == ">= 20000"
    assert goals["a box is moved"] == "<= 20 ms"
    assert goals["most memory of the server (resident)"] == "<= 500 MB"
    assert all(what in out for what in goals)


def test_hostile_requests_find_nothing():
    assert "problems: 0" in run("fuzz_view.py", "--requests", 300).splitlines()
