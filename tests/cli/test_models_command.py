"""`labelstore models`: a table to search and copy from, and the same as JSON."""

from __future__ import annotations

import json
import sys

import pytest
from commands import run_here, run_installed


@pytest.fixture(autouse=True)
def empty_caches(tmp_path, monkeypatch):
    for variable in ("XDG_CACHE_HOME", "TORCH_HOME", "HF_HUB_CACHE"):
        monkeypatch.setenv(variable, str(tmp_path / variable))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "HF_HUB_CACHE"))


def table(out: str) -> dict[str, list[str]]:
    heading, *lines = out.splitlines()
    assert heading.split() == ["name", "input", "classes", "names", "weights", "map"]
    return {line.split()[0]: line.split(maxsplit=5)[1:] for line in lines}


def test_the_installed_command_lists_everything_a_line_each():
    shown = run_installed("models")
    assert shown.code == 0
    rows = table(shown.out)
    assert len(rows) == len(shown.out.splitlines()) - 1 > 1000
    assert next(iter(rows)) == "efficientnet-lite0"
    assert rows["efficientnet-lite0"] == ["224", "1000", "known", "packaged", "-"]
    assert rows["timm:tf_efficientnet_l2.ns_jft_in1k_475"][:3] == ["475", "1000", "known"]
    assert rows["timm:vit_base_patch16_clip_224.openai"][1:3] == ["512", "-"]
    assert f"{len(rows)} map sizes not looked for yet: labelstore models PATTERN" in shown.message


def test_a_pattern_adds_map_sizes_which_later_lists_show():
    shown = run_here("models", "TEST_VIT.*")
    assert (shown.code, shown.err) == (0, "")
    assert table(shown.out) == {"timm:test_vit.r160_in1k": ["160", "1000", "known", "download", "10x10"]}
    assert table(run_here("models").out)["timm:test_vit.r160_in1k"][-1] == "10x10"


def test_networks_without_a_map_say_so_in_their_line():
    rows = table(run_here("models", "torchvision:[as]*net1_1").out) | table(run_here("models", "alexnet").out)
    assert rows["torchvision:squeezenet1_1"][-1] == "13x13"
    assert rows["torchvision:alexnet"][-1] == "no per-location head"


def test_the_same_as_json():
    (alexnet,) = json.loads(run_here("models", "alexnet", "--json").out)
    reason = alexnet.pop("reason")
    assert reason.startswith("has no per-location head. Tried: ")
    assert alexnet == {
        "name": "torchvision:alexnet",
        "input_size": 224,
        "num_classes": 1000,
        "classes_named": True,
        "weights": "download",
        "map_size": None,
    }
    first, *others = json.loads(run_here("models", "--json").out)
    assert (first["name"], first["map_size"], first["reason"]) == ("efficientnet-lite0", None, "not looked for")
    assert len(others) > 1000
    (lite,) = json.loads(run_here("models", "efficientnet-lite0", "--json").out)
    assert (lite["map_size"], lite["reason"]) == ([7, 7], None)


@pytest.mark.parametrize(("pattern", "near"), [("resnt18", "resnet18"), ("timm:efficientnt_b0", "efficientnet_b0")])
def test_a_pattern_that_nothing_fits(pattern, near):
    shown = run_here("models", pattern)
    assert (shown.code, shown.out) == (1, "")
    assert shown.err.startswith(f"Error: no annotator fits '{pattern}'. Did you mean {near}")
    assert shown.err.count("\n") == 1


def test_without_timm_torchvisions_are_listed_and_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    shown = run_here("models", "resnet18")
    assert list(table(shown.out)) == ["torchvision:resnet18"]
    assert "timm: pip install 'labelstore[timm]'" in shown.err
