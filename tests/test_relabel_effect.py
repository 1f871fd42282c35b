"""The effect study's parts do what its conclusions rest on; the whole of it runs with tiny settings."""

from __future__ import annotations

import importlib
import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from labelstore import LabelMapReader

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture(autouse=True, scope="module")
def one_thread_with_benchmarks_in_reach():
    threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        torch.set_num_threads(1)
        yield
    torch.set_num_threads(threads)


def part(name: str):
    return importlib.import_module(f"effect.{name}")


@pytest.fixture(scope="module")
def material(tmp_path_factory, one_thread_with_benchmarks_in_reach):
    """A tiny study's: images, a store by `labelstore annotate`, an untrained teacher's weights."""
    settings, study = part("settings"), part("study")
    shop = study.Workshop(tmp_path_factory.mktemp("workshop"), settings.TINY["digits"])
    torch.manual_seed(0)
    torch.save(part("networks").teacher(shop.study.classes).state_dict(), shop.root / "teacher-1.pth")
    all_logits = shop.store("all", ("--encoding", "topk", "--top-k", "10"))
    return part("arms").Material(shop.images(), {"all": all_logits}, shop.teacher())


def batches(arm, seed=0):
    """What an arm's trainings see: (images, targets) of every batch, without a training."""
    learning, seen = part("learning"), []
    data, labels = arm

    def recording(images, given):
        inputs, targets = labels(images, given)
        seen.append((inputs.clone(), targets.clone()))
        return inputs, targets

    model = part("networks").student(tuple(map(str, range(10))))
    learning.train(model, data, recording, 0.01, learning.Schedule(2, batch=16), seed)
    return seen


def test_the_parts_of_the_digits_have_no_digit_in_common():
    objects = part("objects")
    seen = {name: {cut.tobytes() for cuts in objects.digits(name).by_class.values() for cut in cuts} for name in objects.PARTS}
    assert sum(map(len, seen.values())) > 1700
    names = list(seen)
    for place, name in enumerate(names):
        for other in names[place + 1 :]:
            assert len(seen[name] & seen[other]) <= 1, "two people may write the same 1"


def test_a_scenes_label_is_one_of_the_objects_that_it_shows(tmp_path):
    objects, scenes = part("objects"), part("scenes")
    root = scenes.write_scenes(tmp_path / "scenes", objects.digits("train"), 40, (2, 3, 4), seed=0)
    present = scenes.read_present(root)
    assert len(present) == 40
    assert all(image_id.split("/")[0] in shown for image_id, shown in present.items())
    assert np.mean([len(shown) for shown in present.values()]) > 1.8
    again = scenes.write_scenes(tmp_path / "again", objects.digits("train"), 40, (2, 3, 4), seed=0)
    assert all((root / key).read_bytes() == (again / key).read_bytes() for key in present)


def test_all_arms_of_a_seed_see_the_same_crops_and_other_seeds_see_others(material):
    arms, ablations = part("arms"), part("ablations")
    expected = batches(arms.single(material))
    for arm in (
        arms.single(material, 0.1),
        arms.whole(material, "all"),
        arms.crops(material, "all"),
        arms.best_of_crops(material, "all"),
        arms.wrong_axes(material, "all"),
        arms.online(material),
        ablations.dense(material),
    ):
        found = batches(arm)
        assert len(found) == len(expected) == 8
        assert all(torch.equal(mine[0], theirs[0]) for mine, theirs in zip(found, expected, strict=True))
        for _, targets in found:
            torch.testing.assert_close(targets.float().sum(dim=1), torch.ones(16))
    assert not torch.equal(batches(arms.single(material), seed=1)[0][0], expected[0][0])


def test_cutmix_draws_from_a_stream_of_its_own(material):
    """Where two batches were mixed, the rest of the picture is still the plain arm's, to the last batch."""
    arms = part("arms")
    plain, mixed = batches(arms.single(material)), batches(arms.with_cutmix(arms.single(material), seed=5))
    for (images, _), (cut, targets) in zip(plain, mixed, strict=True):
        kept = (images == cut).all(dim=1).float().mean(dim=(1, 2))
        own = targets.max(dim=1).values
        assert (kept > 0).any() or own.min() < 1
    assert any(not torch.equal(images, cut) for (images, _), (cut, _) in zip(plain, mixed, strict=True))


def test_what_is_stored_of_all_logits_is_what_the_teacher_says(material):
    """ReLabel out of the store (8 bits) and out of the teacher's own float32 maps: the same labels but for rounding."""
    arms, ablations = part("arms"), part("ablations")
    pairs = zip(batches(arms.crops(material, "all")), batches(ablations.dense(material)), strict=True)
    assert max(float((stored - direct).abs().max()) for (_, stored), (_, direct) in pairs) < 0.02


def test_pooled_probabilities_are_means_of_locations(material):
    ablations = part("ablations")
    _, labels = ablations.dense(material, probabilities=True)
    maps = ablations.dense_logits(material).softmax(dim=1)
    whole = torch.tensor([[0.0, 0.0, 1.0, 1.0]], dtype=torch.float64)
    _, soft = labels(torch.zeros(1), (torch.tensor([3]), whole))
    torch.testing.assert_close(soft[0], maps[3].mean(dim=(1, 2)), atol=2e-3, rtol=0)


def test_intervals_are_students():
    statistics = part("statistics")
    found = statistics.paired({0: 3.0, 1: 5.0, 2: 4.0, 9: 0.0}, {0: 1.0, 1: 2.0, 2: 3.0})
    assert (found.mean, found.deviation, found.seeds) == (2.0, 1.0, 3)
    assert found.high - found.mean == pytest.approx(4.302653 / math.sqrt(3))
    alone = statistics.estimate([1.0])
    assert (alone.mean, alone.low, alone.high) == (1.0, -math.inf, math.inf)
    with pytest.raises(ValueError, match="no seed in common"):
        statistics.paired({0: 1.0}, {1: 1.0})


def test_the_interval_holds_the_truth_nineteen_times_of_twenty():
    statistics = part("statistics")
    rng = np.random.default_rng(0)
    drawn = [statistics.estimate(rng.normal(7, 2, 5).tolist()) for _ in range(2000)]
    assert np.mean([found.low <= 7 <= found.high for found in drawn]) == pytest.approx(0.95, abs=0.02)


def test_the_rate_of_an_arm_is_the_lowest_of_the_best_on_validation_scenes():
    tuning, running = part("tuning"), part("running")
    jobs = tuning.tuning_jobs(["a", "b"], rates=(0.1, 0.2), seeds=(7, 8))
    assert {job.part for job in jobs} == {"validation"}
    percent = {("a", 0.1): (60, 50), ("a", 0.2): (59, 55), ("b", 0.1): (50, 50), ("b", 0.2): (41, 60)}
    results = [running.Result(job, percent[job.arm, job.rate][job.seed - 7], 99 - job.rate) for job in jobs]
    assert tuning.best_rates(results) == {"a": 0.2, "b": 0.1}


def test_what_is_done_is_not_done_again(tmp_path):
    running = part("running")
    first, second = running.Job("a", 0.1, 0), running.Job("a", 0.1, 1)
    running.Results(tmp_path / "results.jsonl").add(running.Result(first, 50.0, 40.0))
    again = running.Results(tmp_path / "results.jsonl")
    assert again.missing([first, second]) == [second]
    assert again.of([first, second]) == [running.Result(first, 50.0, 40.0)]


@pytest.mark.slow
def test_a_bigger_student_on_bigger_scenes(tmp_path):
    """What --gpu measures there, for one step here."""
    settings, study, running = part("settings"), part("study"), part("running")
    tiny = replace(settings.TINY["digits"], student="resnet18", scale=2, tests=4)
    shop = study.Workshop(tmp_path, tiny)
    torch.save(part("networks").teacher(tiny.classes).state_dict(), shop.root / "teacher-1.pth")
    with Image.open(next(shop.images().rglob("*.png"))) as scene:
        assert scene.size == (128, 128)
    result = running.run_job(shop, running.Job(running.RELABEL, 0.001, 0))
    assert 0 <= result.one <= 100
    assert LabelMapReader(shop.store(running.STORE)).map_size == (24, 24)


@pytest.mark.gpu
def test_the_study_on_a_gpu(tmp_path):
    settings, study, running = part("settings"), part("study"), part("running")
    shop = study.Workshop(tmp_path, replace(settings.TINY["digits"], student="resnet18", scale=2, device="cuda"))
    for arm in running.MAIN:
        assert 0 <= running.run_job(shop, running.Job(arm, 0.001, 0)).one <= 100


@pytest.mark.slow
def test_the_whole_study_runs(tmp_path):
    options = ["--tiny", "--full", "--seeds", "2", "--rounds", "1", "--processes", "2", "--work", tmp_path / "work"]
    command = [sys.executable, BENCHMARKS / "relabel_effect.py", *options, "--json", tmp_path / "out.json"]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=1800, check=False)
    assert done.returncode == 0, done.stderr
    (found,) = json.loads((tmp_path / "out.json").read_text())
    running = part("running")
    assert [line["arm"] for line in found["lines"]] == list(running.MAIN)
    arms = {line["arm"] for line in found["ablations"]}
    assert {"wrong axes", "top 1", "all logits, float32", "pooled probabilities", "map of 3x3"} <= arms
    assert all(line["one"]["seeds"] == 2 for line in found["lines"] + found["ablations"])
    assert set(found["epoch_seconds"]) == set(running.MAIN)
    assert "over ReLabel" in done.stdout
