"""Annotators out of files: programs of torch.export and TorchScript, what they say of themselves, and what is never run."""

from __future__ import annotations

import io
import json
import pickle
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from labelstore.errors import AnnotatorError, OptionError
from labelstore.pipelines.annotators import Annotator, AnnotatorSpec, Preprocessing, load_annotator

SIDE = 32
SAYS = {
    "input_size": 48,
    "mean": [0.1, 0.2, 0.3],
    "std": [1, 2, 3],
    "interpolation": "bicubic",
    "class_names": ["cat", "dog", "bird", "fish"],
    "class_ids": ["c1", "c2", "c3", "c4"],
}


class Pooled(nn.Module):
    """A classifier with average pooling before its head: 4 classes, a location for every 8 px."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.stem = nn.Conv2d(3, 6, 8, 8)
        self.norm = nn.BatchNorm2d(6)
        self.head = nn.Linear(6, 4)

    def features(self, x: Tensor) -> Tensor:
        return torch.relu(self.norm(self.stem(x)))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.flatten(nn.functional.adaptive_avg_pool2d(self.features(x), 1), 1))


class Dense(Pooled):
    """The same, with logits of every location."""

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Pair(Pooled):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return super().forward(x) + super().forward(y)


class Bomb:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.touch, (self.file,)


def export(
    module: nn.Module, file: Path, batch: int | None = None, size: int | None = SIDE, says: object = None, inputs: int = 1
) -> str:
    """Save what torch.export makes; for any batch (None) and any size (None), or for one alone."""
    images = (torch.randn(batch or 2, 3, size or SIDE, size or SIDE),) * inputs
    shape = {} if batch else {0: torch.export.Dim("batch")}
    shape |= {} if size else {axis: 8 * torch.export.Dim(f"cells{axis}", min=2, max=64) for axis in (2, 3)}
    program = torch.export.export(module, images, dynamic_shapes=(shape,) * inputs)
    torch.export.save(program, file, extra_files=None if says is None else {"labelstore.json": as_text(says)})
    return str(file)


def script(module: nn.Module, file: Path, says: object = None, *, frozen: bool = False) -> str:
    """Save what TorchScript makes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        program = torch.jit.script(module)
        program = torch.jit.freeze(program) if frozen else program
        torch.jit.save(program, file, _extra_files=None if says is None else {"labelstore.json": as_text(says)})
    return str(file)


def as_text(says: object) -> str:
    return says if isinstance(says, str) else json.dumps(says)


def load(model: str, size: int | None = None) -> Annotator:
    return load_annotator(AnnotatorSpec(model, size))


def both(module: nn.Module, folder: Path, says: object = None) -> list[str]:
    """The module in both kinds of file."""
    return [export(module, folder / "model.pt2", says=says), script(module, folder / "model.pt", says=says)]


@pytest.fixture
def pooled() -> nn.Module:
    module = Pooled().eval()
    module.norm.running_mean.fill_(0.1)
    return module


@pytest.fixture
def dense(pooled: nn.Module) -> nn.Module:
    module = Dense().eval()
    module.load_state_dict(pooled.state_dict())
    return module


# What programs give


@pytest.mark.parametrize("count", [1, 2, 5])
@torch.no_grad()
def test_a_pooled_program_gives_logits_of_every_location(pooled: Any, dense: nn.Module, tmp_path: Path, count: int) -> None:
    batch = torch.randn(count, 3, SIDE, SIDE)
    for model in both(pooled, tmp_path):
        annotator = load(model, SIDE)
        assert (annotator.info.map_size, annotator.info.num_classes, annotator.info.name) == ((4, 4), 4, model)
        assert max(annotator.linear_error, annotator.row_error) < 1e-6
        torch.testing.assert_close(annotator.dense(batch), dense(batch))
        torch.testing.assert_close(annotator.whole(batch), pooled(batch))


@pytest.mark.parametrize("count", [1, 2, 5])
@torch.no_grad()
def test_a_program_with_logits_of_every_location_is_taken_as_it_is(dense: nn.Module, tmp_path: Path, count: int) -> None:
    batch = torch.randn(count, 3, SIDE, SIDE)
    for model in both(dense, tmp_path):
        annotator = load(model, SIDE)
        torch.testing.assert_close(annotator.dense(batch), dense(batch))
        assert annotator.dense(batch).dtype == torch.float32


@pytest.mark.slow
@pytest.mark.parametrize("name", ["test_resnet", "test_vit"])
@torch.no_grad()
def test_a_real_network_as_a_program_gives_what_it_gives_as_a_module(tmp_path: Path, name: str) -> None:
    import timm

    module = timm.create_model(name, num_classes=10).eval()
    side = timm.data.resolve_data_config(model=module)["input_size"][-1]
    torch.save(module.state_dict(), tmp_path / "weights.pth")
    own = load_annotator(AnnotatorSpec(f"timm:{name}", weights=str(tmp_path / "weights.pth")))
    batch = torch.randn(3, 3, side, side)
    annotator = load(export(module, tmp_path / "model.pt2", size=side))
    assert annotator.info.map_size == own.info.map_size
    torch.testing.assert_close(annotator.dense(batch), own.dense(batch), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(annotator.whole(batch), module(batch), rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_a_program_for_a_fixed_number_of_images_takes_any_if_its_output_is_a_map(dense: nn.Module, tmp_path: Path) -> None:
    annotator = load(export(dense, tmp_path / "model.pt2", batch=3))
    for count in (1, 3, 7):
        batch = torch.randn(count, 3, SIDE, SIDE)
        torch.testing.assert_close(annotator.dense(batch), dense(batch))


def test_a_pooled_program_for_a_fixed_number_of_images_is_refused(pooled: nn.Module, tmp_path: Path) -> None:
    for count in (1, 2, 3):
        with pytest.raises(AnnotatorError, match=rf"model\.pt2: exported for batches of {count} exactly.*dynamic_shapes"):
            load(export(pooled, tmp_path / "model.pt2", batch=count))


def test_a_program_is_the_same_on_strided_input(dense: nn.Module, tmp_path: Path) -> None:
    batch = torch.randn(2, 3, SIDE, SIDE)
    for model in both(dense, tmp_path):
        annotator = load(model, SIDE)
        strided = batch.to(memory_format=torch.channels_last)
        torch.testing.assert_close(annotator.dense(strided), annotator.dense(batch))


# Sizes


def test_the_size_is_the_one_that_a_program_was_exported_for(pooled: nn.Module, tmp_path: Path) -> None:
    info = load(export(pooled, tmp_path / "model.pt2", size=40)).info
    assert (info.own_input_size, info.preprocessing.input_size, info.map_size) == (40, 40, (5, 5))
    assert info.preprocessing == Preprocessing(40, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), "bilinear")
    with pytest.raises(AnnotatorError, match=r"does not take images of 48 px \(its own size is 40 px\)"):
        load(str(tmp_path / "model.pt2"), 48)


def test_a_program_for_any_size_takes_the_one_that_is_asked_for(pooled: nn.Module, tmp_path: Path) -> None:
    model = export(pooled, tmp_path / "model.pt2", size=None)
    assert load(model).info.map_size == (28, 28)
    assert load(model, 64).info.map_size == (8, 8)
    assert load(script(pooled, tmp_path / "model.pt")).info.map_size == (28, 28)


# What files say of themselves


def test_preprocessing_and_classes_out_of_the_file(pooled: nn.Module, tmp_path: Path) -> None:
    for model in [export(pooled, tmp_path / "m.pt2", size=48, says=SAYS), script(pooled, tmp_path / "m.ts", SAYS)]:
        info = load(model).info
        assert info.preprocessing == Preprocessing(48, (0.1, 0.2, 0.3), (1.0, 2.0, 3.0), "bicubic")
        assert info.class_names == ("cat", "dog", "bird", "fish")
        assert info.class_ids == ("c1", "c2", "c3", "c4")


@pytest.mark.parametrize(
    ("says", "message"),
    [
        ("{", "labelstore.json: expected JSON"),
        ([1], "labelstore.json: expected an object with keys out of input_size, mean"),
        ({"size": 3}, "labelstore.json: expected an object with keys out of input_size, mean"),
        ({"input_size": "large"}, "labelstore.json: .*large"),
        ({"input_size": -3}, "an input_size of at least 1"),
        ({"mean": 0.5}, "labelstore.json: TypeError"),
        ({"mean": [0.5, 0.5]}, "labelstore.json: ValueError"),
        ({"std": [0, 1, 1]}, "3 positive stds"),
        ({"interpolation": "cubic"}, "an interpolation out of nearest"),
        ({"class_names": ["cat"]}, "expected 4 class_names, one a class, got 1"),
        ({"class_ids": 3}, "labelstore.json: TypeError"),
    ],
)
def test_a_file_that_says_something_wrong(pooled: nn.Module, tmp_path: Path, says: Any, message: str) -> None:
    for model in both(pooled, tmp_path, says):
        with pytest.raises(AnnotatorError, match=message) as caught:
            load(model)
        assert model in str(caught.value)


def test_every_file_has_its_own_digest(pooled: nn.Module, tmp_path: Path) -> None:
    files = [script(pooled, tmp_path / "one.pt", frozen=True)]
    pooled.head.bias.data += 1
    files += [script(pooled, tmp_path / "two.pt", frozen=True), *both(pooled, tmp_path)]
    digests = {load(file, SIDE).info.weights_sha256 for file in files}  # frozen programs have no state dict
    assert len(digests) == 4


# What is no program


@pytest.mark.parametrize("name", ["model.pt2", "model.pt", "model.ts"])
@pytest.mark.parametrize("data", [b"", b"not a model", b"PK\x03\x04 half a zip file"])
def test_a_broken_file(tmp_path: Path, name: str, data: bytes) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(AnnotatorError, match=rf"{name}: cannot be loaded as a program: "):
        load(str(tmp_path / name))


def test_a_file_that_is_cut_short(pooled: nn.Module, tmp_path: Path) -> None:
    for model in both(pooled, tmp_path):
        data = Path(model).read_bytes()
        Path(model).write_bytes(data[: len(data) // 2])
        with pytest.raises(AnnotatorError, match="cannot be loaded as a program: "):
            load(model)


@pytest.mark.parametrize("name", ["nowhere.pt2", "nowhere.pt", "no/where.pt2", "no/such/model"])
def test_a_file_that_is_not_there(name: str) -> None:
    with pytest.raises(AnnotatorError, match=rf"annotator '{name}': no such file"):
        load(name)


@pytest.mark.parametrize("name", ["weights.pt", "weights.pt2", "weights.pth"])
def test_weights_given_as_a_model_get_a_hint(pooled: nn.Module, tmp_path: Path, name: str) -> None:
    torch.save(pooled.state_dict(), tmp_path / name)
    with pytest.raises(AnnotatorError, match="--model NAME --weights FILE"):
        load(str(tmp_path / name))


def test_a_program_has_its_weights_inside(pooled: nn.Module, tmp_path: Path) -> None:
    for model in both(pooled, tmp_path):
        with pytest.raises(AnnotatorError, match=r"--weights w\.pth: .* has its weights inside; leave --weights out"):
            load_annotator(AnnotatorSpec(model, weights="w.pth"))


def test_a_program_is_not_compiled(pooled: nn.Module, tmp_path: Path) -> None:
    for model in both(pooled, tmp_path):
        with pytest.raises(OptionError, match="--compile: .* is a program, and runs as it was saved"):
            load_annotator(AnnotatorSpec(model), compiled=True)


def test_a_program_of_two_inputs(tmp_path: Path) -> None:
    with pytest.raises(AnnotatorError, match=r"expected a program of one input \[B, 3, S, S\]"):
        load(export(Pair().eval(), tmp_path / "model.pt2", inputs=2))


def test_a_program_that_was_exported_in_training_mode(tmp_path: Path) -> None:
    for batch in (None, 2):
        with pytest.raises(AnnotatorError, match=r"exported in training mode \(aten\.batch_norm\.default\): call eval\(\)"):
            load(export(Pooled(), tmp_path / "model.pt2", batch=batch))


# What is never run


@pytest.fixture
def bomb(tmp_path: Path) -> Any:
    """Something that must not be unpickled; the fixture fails if it was."""
    crater = tmp_path / "crater"
    made = Bomb(crater)
    yield made
    assert not crater.exists()


def test_the_bomb_goes_off(tmp_path: Path) -> None:
    data = pickle.dumps(Bomb(tmp_path / "crater"))
    pickle.loads(data)
    assert (tmp_path / "crater").exists()


def with_members(file: Path, change: Callable[[dict[str, bytes]], None]) -> str:
    """Rewrite a program's zip file with other members."""
    with zipfile.ZipFile(file) as old:
        members = {name: old.read(name) for name in old.namelist()}
    change(members)
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as new:
        for name, data in members.items():
            new.writestr(name, data)
    return str(file)


def saved(value: object) -> bytes:
    file = io.BytesIO()
    torch.save(value, file)
    return file.getvalue()


def test_rewriting_a_file_does_not_break_it(pooled: nn.Module, tmp_path: Path) -> None:
    export(pooled, tmp_path / "model.pt2")
    assert load(with_members(tmp_path / "model.pt2", lambda _: None)).info.map_size == (4, 4)


def test_pickled_weights_are_loaded_as_tensors_or_not_at_all(pooled: nn.Module, tmp_path: Path, bomb: Bomb) -> None:
    export(pooled, tmp_path / "model.pt2")

    def plant(members: dict[str, bytes]) -> None:
        name = next(name for name in members if name.endswith("model_weights_config.json"))
        config = json.loads(members[name])
        key, payload = next(iter(config["config"].items()))
        payload["use_pickle"] = True
        members[name] = json.dumps(config).encode()
        members[f"{Path(name).parent}/{payload['path_name']}"] = saved({key: bomb})

    with pytest.raises(AnnotatorError, match="cannot be loaded as a program: "):
        load(with_members(tmp_path / "model.pt2", plant))


def test_pickled_example_inputs_are_not_loaded(pooled: nn.Module, tmp_path: Path, bomb: Bomb) -> None:
    export(pooled, tmp_path / "model.pt2")

    def plant(members: dict[str, bytes]) -> None:
        name = next(name for name in members if "sample_inputs" in name)
        members[name] = saved(((bomb,), {}))

    with pytest.raises(AnnotatorError, match="cannot be loaded as a program: "):
        load(with_members(tmp_path / "model.pt2", plant))


@pytest.mark.parametrize("prefix", ["opaque_obj_", "custom_obj_", "OPAQUE_obj_"])
def test_pickled_objects_among_the_constants_are_not_loaded(pooled: nn.Module, tmp_path: Path, bomb: Bomb, prefix: str) -> None:
    export(pooled, tmp_path / "model.pt2")

    def plant(members: dict[str, bytes]) -> None:
        name = next(name for name in members if name.endswith("model_constants_config.json"))
        config = json.loads(members[name])
        config["config"]["x"] = {
            "path_name": f"{prefix.lower()}0",
            "is_param": False,
            "use_pickle": True,
            "tensor_meta": None,
        }
        members[name] = json.dumps(config).encode()
        members[f"{Path(name).parent}/{prefix}0"] = pickle.dumps(bomb)

    with pytest.raises(
        AnnotatorError, match=rf"got pickled objects too \(data/constants/{prefix}0\), which could run any code"
    ):
        load(with_members(tmp_path / "model.pt2", plant))


def test_a_compiled_library_is_not_loaded(pooled: nn.Module, tmp_path: Path) -> None:
    export(pooled, tmp_path / "model.pt2")

    def plant(members: dict[str, bytes]) -> None:
        root = next(iter(members)).split("/")[0]
        members[f"{root}/data/aotinductor/model/model.wrapper.so"] = b"\x7fELF"

    with pytest.raises(AnnotatorError, match=r"got a compiled library too \(data/aotinductor/model"):
        load(with_members(tmp_path / "model.pt2", plant))


def test_a_pickle_in_the_older_format_is_not_loaded(tmp_path: Path, bomb: Bomb) -> None:
    with zipfile.ZipFile(tmp_path / "model.pt2", "w") as file:
        file.writestr("version", "8.14")
        file.writestr("serialized_exported_program.json", "{}")
        for name in ("state_dict", "constants", "example_inputs"):
            file.writestr(f"serialized_{name}.pt", saved(({"x": bomb},)))
    with pytest.raises(AnnotatorError, match="cannot be loaded as a program: "):
        load(str(tmp_path / "model.pt2"))


@pytest.mark.parametrize("name", ["model.pt2", "model.pt"])
def test_a_whole_pickled_model_is_not_loaded(tmp_path: Path, bomb: Bomb, name: str) -> None:
    (tmp_path / name).write_bytes(saved(bomb))
    with pytest.raises(AnnotatorError, match="--model NAME --weights FILE"):
        load(str(tmp_path / name))
