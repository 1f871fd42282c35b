"""A store, which may be a stranger's, does not choose the program that runs: not in any of the ways that go on with it."""

from __future__ import annotations

import json
import shutil
import textwrap
from pathlib import Path

import pytest
import torch
from commands import run_here
from folders import changed, edit_attributes, stamps
from runs import SERIAL
from toy_annotators import Colours

from labelstore import LabelMapReader
from labelstore.errors import AnnotatorError, FormatError, StoreMismatchError
from labelstore.pipelines import shard
from labelstore.pipelines.annotate import annotate
from labelstore.pipelines.annotators.spec import AnnotatorSpec, EnsembleSpec
from labelstore.pipelines.annotators.trust import runs_code
from labelstore.pipelines.observer import Observer
from labelstore.pipelines.records import recorded_annotators
from labelstore.pipelines.resampling import sample_again
from labelstore.pipelines.settings import Settings

WAYS = ("go on", "retry", "extend", "sample")


@pytest.fixture
def own(tmp_path, monkeypatch) -> Path:
    """A folder of modules whose import leaves a mark: the toy annotator, as `strange_annotator:make`."""
    folder = tmp_path / "modules"
    folder.mkdir()
    (folder / "strange_annotator.py").write_text(
        textwrap.dedent(
            f"""
            from pathlib import Path
            from toy_annotators import colours as make
            Path({str(tmp_path / "ran")!r}).touch()
            """
        )
    )
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delitem(__import__("sys").modules, "strange_annotator", raising=False)
    shard.keep_annotators()
    return tmp_path / "ran"


def program(file: Path, shift: float = 0.0) -> str:
    """The toy annotator as a program in a file."""
    module = Colours(shift).eval()
    module.forward = module.forward_dense
    made = torch.export.export(module, (torch.zeros(2, 3, 56, 56),), dynamic_shapes=({0: torch.export.Dim("batch")},))
    torch.export.save(made, file, extra_files={"labelstore.json": json.dumps({"mean": [0, 0, 0], "std": [1, 1, 1]})})
    return str(file)


def undone(store: Path, name: str, requested: str | None = None, **more: object) -> Path:
    """A store with a shard to be made, and another annotator's name."""
    (store / "commits" / "c.1.0.0").unlink(missing_ok=True)
    edit_attributes(store, lambda said: said["annotator"].update(name=name, requested=requested, **more))
    return store


def go_on(way: str, store: Path, pictures: Path, *models: str) -> None:
    """Have a store's annotator loaded, if it may be."""
    if way == "sample":
        sample_again(str(store), None, 3, SERIAL, models)
        return
    more = {"retry": {"retry_failed": True}, "extend": {"extend": True}}.get(way, {})
    annotate(pictures, str(store), Settings(models or None), SERIAL, Observer(), **more)


@pytest.mark.parametrize("way", WAYS)
def test_a_module_that_only_the_store_names_is_not_imported(topk, pictures, own, way):
    store = undone(topk, "strange_annotator:make")
    before = stamps(store)
    with pytest.raises(AnnotatorError, match=r"only the store names it; nothing was loaded.* --model strange_annotator:make"):
        go_on(way, store, pictures)
    assert not own.exists()
    assert not changed(before, stamps(store))
    go_on(way, store, pictures, "strange_annotator:make")
    assert own.exists()


@pytest.mark.parametrize("way", WAYS)
def test_what_a_store_says_was_requested_does_not_count(topk, pictures, own, way):
    """`--model resnet18`, which the store says is what its own module was called by."""
    store = undone(topk, "strange_annotator:make", requested="resnet18")
    with pytest.raises(AnnotatorError, match="only the store names it"):
        go_on(way, store, pictures, "resnet18")
    assert not own.exists()


@pytest.mark.parametrize("way", WAYS)
def test_a_member_of_an_ensemble_is_no_way_in(topk, pictures, own, way):
    other = {"name": "strange_annotator:make", "input_size": 56}
    store = undone(topk, "toy_annotators:colours", others=[other])
    with pytest.raises((AnnotatorError, StoreMismatchError), match=r"only the store names it|made with other settings"):
        go_on(way, store, pictures, "toy_annotators:colours")
    assert not own.exists()


@pytest.mark.parametrize("way", WAYS)
def test_a_precision_that_is_none_is_the_stores_and_no_option(topk, pictures, way):
    store = undone(topk, "toy_annotators:colours", precision="\x1b[31m")
    expected = r"topk\.zarr: annotator: precision: expected float32 or bfloat16, found '\\x1b\[31m'"
    with pytest.raises(FormatError, match=expected):
        go_on(way, store, pictures, "toy_annotators:colours")


@pytest.mark.parametrize("way", WAYS)
def test_a_program_is_hashed_before_it_is_loaded(topk, pictures, tmp_path, monkeypatch, way):
    file = program(tmp_path / "colours.pt2")
    shutil.rmtree(topk)
    annotate(pictures, str(topk), Settings(file, top_k=3, encoding="topk"), SERIAL, Observer())
    store = undone(topk, file)
    with pytest.raises(AnnotatorError, match=rf"only the store names it.* --model {file}$"):
        go_on(way, store, pictures)
    go_on(way, store, pictures, file)
    undone(store, file)
    program(tmp_path / "colours.pt2", shift=1.0)
    shard.keep_annotators()
    loaded = []
    monkeypatch.setattr(torch.export, "load", lambda *given, **_: loaded.append(given))
    before = stamps(store)
    with pytest.raises(AnnotatorError, match="expected the program that the store was begun with .* it was not loaded"):
        go_on(way, store, pictures, file)
    assert loaded == []
    assert not changed(before, stamps(store))


def test_of_an_ensemble_each_programs_file_is_recorded(pictures, tmp_path):
    one, other = program(tmp_path / "one.pt2"), program(tmp_path / "other.pt2", shift=1.0)
    store, models = tmp_path / "both.zarr", (one, other, "toy_annotators:colours")
    annotate(pictures, str(store), Settings(models, top_k=3, encoding="topk"), SERIAL, Observer())
    info = LabelMapReader(store).info
    spec = recorded_annotators(str(store), info, models)
    assert spec.members[0].sha256 != spec.members[1].sha256
    assert [len(member.sha256 or "") for member in spec.members] == [64, 64, 0]
    with pytest.raises(AnnotatorError, match=rf"its annotator {other} runs code"):
        recorded_annotators(str(store), info, (one, "toy_annotators:colours"))


def test_the_command_says_how(topk, pictures, own):
    store = undone(topk, "strange_annotator:make")
    for command in (["annotate", pictures, "--store", store, "--workers", 0], ["verify", store, "--sample", 3, "--partial"]):
        (store / "commits" / "c.1.0.0").unlink(missing_ok=True)
        refused = run_here(*command)
        assert refused.code == 1
        assert "If you trust it, name it yourself: --model strange_annotator:make" in refused.message
    assert not own.exists()
    shown = run_here("verify", store, "--sample", 3, "--partial", "--device", "cpu", "--model", "strange_annotator:make")
    assert "3 rows annotated again: all the same" in shown.out


def test_workers_get_the_digest_too(topk, pictures, tmp_path):
    """What is sent to workers is the spec: a file of the same name there is held against it."""
    file = program(tmp_path / "colours.pt2")
    spec = EnsembleSpec((AnnotatorSpec(file, sha256="0" * 64),))
    with pytest.raises(AnnotatorError, match="it was not loaded"):
        shard.load_annotators(spec, "cpu")


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("efficientnet-lite0", False),
        ("timm:tf_efficientnet_l2.ns_jft_in1k_475", False),
        ("torchvision:resnet50", False),
        ("resnet18.a1_in1k", False),
        ("package.module:factory", True),
        ("os:getcwd", True),
        ("hf-hub:stranger/model", True),
        ("timm:hf-hub:stranger/model", True),
        ("timm:local-dir:/tmp/x", True),
        ("timm:x/y", True),
        ("timm:evil.pt", True),  # a file of this name may lie in the current folder
        ("torchvision:evil.TS", True),
        ("evil.pt2", True),
        ("/tmp/evil.jit", True),
        ("./resnet18", True),
        ("https://x.org/model.pt", True),
        ("", True),
        ("resnet18\n", True),
    ],
)
def test_what_runs_code(model, expected):
    assert runs_code(model) is expected


def test_an_imported_store_has_no_annotator_to_sample(topk, pictures):
    edit_attributes(topk, lambda said: said.update(imported={"kind": "relabel", "location": "", "axes": "yx"}))
    with pytest.raises(StoreMismatchError, match="not annotated but imported"):
        sample_again(str(topk), None, 3, SERIAL)
