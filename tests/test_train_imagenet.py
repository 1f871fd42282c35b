"""examples/train_imagenet.py runs as it stands on a small store, learns, and goes on after a kill as if there had been none."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).parent.parent / "examples" / "train_imagenet.py"
SMALL = ("--model", "timm:test_resnet", "--image-size", "32", "--batch-size", "6", "--warmup-epochs", "1", "--workers", "1")
SECONDS_TO_WAIT = 120
ON_CPU = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


def command(store, pictures, out, *options):
    given = [str(pictures), str(pictures), "--store", str(store), "--class-map", "by_id", "--out", str(out)]
    return [sys.executable, str(SCRIPT), *given, *SMALL, *map(str, options)]


def run(*arguments, env=ON_CPU) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*arguments), capture_output=True, text=True, env=env, timeout=300, check=False)


def log_of(out: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def weights_of(out: Path) -> dict[str, torch.Tensor]:
    kept = torch.load(out / "checkpoint.pt", weights_only=True)
    return {f"{part}.{name}": value for part in ("model", "average") for name, value in kept[part].items()}


@pytest.fixture
def real(pictures, tmp_path):
    """Multi-labels in the order of file names (then of folders): blue, green, red of each number; none for the last."""
    file = tmp_path / "real.json"
    file.write_text(json.dumps([*[[0], [1], [2]] * 6, [0, 1], [1, 2], []]))
    return file


def test_it_learns_from_soft_labels_with_everything_on(picture_store, pictures, real, tmp_path):
    options = ("--epochs", 8, "--lr", 0.02, "--recipe", "relabel", "--cutmix", 1.0, "--mixup", 0.2, "--mix-off-epochs", 4)
    options += ("--ema", 0.5, "--real", real)
    done = run(picture_store, pictures, tmp_path / "run", *options)
    assert done.returncode == 0, done.stderr
    log = log_of(tmp_path / "run")
    assert [line["epoch"] for line in log] == list(range(1, 9))
    assert log[-1]["loss"] < log[0]["loss"]
    assert log[-1]["validation"] > 0.5
    assert {"ReaL", "validation (averaged)", "ReaL (averaged)"} <= set(log[-1])


def test_a_killed_run_goes_on_to_the_same_bits(picture_store, pictures, tmp_path):
    options = ("--epochs", 12, "--lr", 0.02, "--cutmix", 1.0, "--ema", 0.9, "--jitter", 0.4, "--lighting", 0.1)
    whole = run(picture_store, pictures, tmp_path / "whole", *options)
    assert whole.returncode == 0, whole.stderr

    cut_off = command(picture_store, pictures, tmp_path / "cut", *options)
    process = subprocess.Popen(cut_off, env=ON_CPU, stdout=subprocess.DEVNULL)
    end = time.monotonic() + SECONDS_TO_WAIT
    while not (tmp_path / "cut" / "log.jsonl").exists() and time.monotonic() < end:
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert len(log_of(tmp_path / "cut")) < 12, "it was over before it was killed"

    resumed = run(picture_store, pictures, tmp_path / "cut", *options)
    assert resumed.returncode == 0, resumed.stderr
    assert "going on after epoch" in resumed.stdout
    expected, found = weights_of(tmp_path / "whole"), weights_of(tmp_path / "cut")
    assert expected.keys() == found.keys()
    assert [name for name in expected if not torch.equal(expected[name], found[name])] == []
    again = run(picture_store, pictures, tmp_path / "cut", *options, "--lr", 0.5)
    assert again.returncode == 1
    assert "a run with other options: lr 0.5 (was 0.02)" in again.stderr


def test_single_labels_and_imagenet_v2(pictures, tmp_path):
    for number, name in enumerate(("blue", "green", "red")):
        (tmp_path / "v2").mkdir(exist_ok=True)
        (tmp_path / "v2" / str(number)).symlink_to(pictures / name)
    given = [sys.executable, str(SCRIPT), str(pictures), str(pictures), "--out", str(tmp_path / "run"), "--v2"]
    given += [str(tmp_path / "v2"), "--epochs", "2", "--smoothing", "0.1", "--precision", "float32", *SMALL]
    done = subprocess.run(given, capture_output=True, text=True, env=ON_CPU, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    last = log_of(tmp_path / "run")[-1]
    assert last["ImageNetV2"] == last["validation"]


@pytest.mark.slow
def test_two_processes_train_one_model(picture_store, pictures, tmp_path):
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    given = command(picture_store, pictures, tmp_path / "run", "--epochs", 2)[1:]
    done = subprocess.run([*start, *given], capture_output=True, text=True, env=ON_CPU, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    log = log_of(tmp_path / "run")
    assert [line["epoch"] for line in log] == [1, 2]
    assert log[-1]["loss"] > 0


@pytest.mark.gpu
def test_it_trains_on_a_gpu_and_goes_on(picture_store, pictures, tmp_path):
    options = ("--epochs", 8, "--lr", 0.02, "--cutmix", 1.0, "--mix-off-epochs", 4, "--ema", 0.5)
    done = run(picture_store, pictures, tmp_path / "run", *options, env=dict(os.environ))
    assert done.returncode == 0, done.stderr
    log = log_of(tmp_path / "run")
    assert log[-1]["loss"] < log[0]["loss"]
    again = run(picture_store, pictures, tmp_path / "run", *options, env=dict(os.environ))
    assert (again.returncode, "going on after epoch 8" in again.stdout) == (0, True)


def test_the_recipes_say_what_the_paper_reports(monkeypatch, tmp_path, capsys):
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    from imagenet.options import parse
    from imagenet.recipes import reported

    given = parse(None, [str(tmp_path), str(tmp_path), "--recipe", "relabel-cutmix", "--lr", "0.001"])
    assert (given.optimizer, given.lr, given.weight_decay, given.batch_size) == ("adamp", 0.001, 0.01, 1024)
    assert reported("torchvision:resnet50", "relabel", soft=True) == 78.9
    assert reported("timm:resnet50", "relabel-cutmix", soft=True) == 80.2
    assert reported("resnet18", "relabel", soft=False) == 71.7
    assert reported("resnet18", None, soft=True) is None
    for options, said in (
        (["--epochs", "0"], "argument --epochs: expected 1 or more, got 0"),
        (["--real", str(tmp_path / "no.json")], "argument --real: no such file: "),
        (["--v2", str(tmp_path / "no")], "argument --v2: no such folder: "),
    ):
        with pytest.raises(SystemExit):
            parse(None, [str(tmp_path), str(tmp_path), *options])
        assert said in capsys.readouterr().err
