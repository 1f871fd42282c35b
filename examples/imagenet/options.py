"""What can be chosen on the command line; a recipe fills in what is not."""

from __future__ import annotations

import argparse
from pathlib import Path

from imagenet.recipes import RECIPES

DEFAULTS = {
    "epochs": 100,
    "batch_size": 256,
    "warmup_epochs": 5,
    "optimizer": "sgd",
    "lr": 0.1,
    "weight_decay": 1e-4,
    "cutmix": 0.0,
    "mixup": 0.0,
    "mix_off_epochs": 0,
    "jitter": 0.0,
    "lighting": 0.0,
}


def parse(description: str | None, arguments: list[str] | None = None) -> argparse.Namespace:
    """Options, with those of the recipe where the command line has none, else the defaults."""
    parser = argparse.ArgumentParser(
        description=description, epilog=_settings(), formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("train", type=_folder, help="folder of training images, a folder a class")
    parser.add_argument("validation", type=_folder, help="likewise")
    parser.add_argument("--store", help="label maps of the training images; without it: their single labels")
    parser.add_argument("--class-map", choices=["same", "by_id"], help="see docs/training.md, 'Which class is which'")
    parser.add_argument(
        "--missing", choices=["raise", "target"], default="raise", help="images without a label map  [default: %(default)s]"
    )
    parser.add_argument("--real", type=_file, metavar="real.json", help="ReaL labels of the validation images")
    parser.add_argument("--v2", type=_folder, metavar="DIR", help="ImageNetV2: a folder a class, named 0 to 999")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("run"),
        help="checkpoint and log; the same command goes on from there  [default: %(default)s]",
    )
    parser.add_argument("--model", default="torchvision:resnet50", help="timm:NAME or torchvision:NAME  [default: %(default)s]")
    parser.add_argument("--recipe", choices=list(RECIPES), help="the paper's settings; see below")
    _training(parser)
    _machine(parser)
    given = parser.parse_args(arguments)
    for name, value in {**DEFAULTS, **(RECIPES[given.recipe] if given.recipe else {})}.items():
        if getattr(given, name) is None:
            setattr(given, name, value)
    return given


def _training(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("training", "Defaults are below.")
    group.add_argument("--epochs", type=_positive)
    group.add_argument("--batch-size", type=_positive, help="of all processes together")
    group.add_argument("--warmup-epochs", type=int)
    group.add_argument("--optimizer", help="sgd, adamw, or one of timm's, such as adamp")
    group.add_argument("--lr", type=float, help="for this batch size: it is not scaled")
    group.add_argument("--weight-decay", type=float)
    group.add_argument("--smoothing", type=float, default=0.0, help="of single labels")
    group.add_argument("--cutmix", type=float, metavar="ALPHA", help="0: none. With --mixup: each for half of the batches")
    group.add_argument("--mixup", type=float, metavar="ALPHA")
    group.add_argument("--mix-off-epochs", type=int, help="the last epochs go without either")
    group.add_argument("--jitter", type=float, help="of brightness, contrast and saturation")
    group.add_argument("--lighting", type=float, help="standard deviation of noise along the colours' principal components")
    group.add_argument("--ema", type=float, default=0.0, metavar="DECAY", help="also average the weights, and evaluate those")
    group.add_argument("--image-size", type=_positive, default=224, help="[default: %(default)s]")
    group.add_argument("--seed", type=int, default=0, help="[default: %(default)s]")


def _machine(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("machine")
    group.add_argument(
        "--workers", type=int, default=8, help="processes that load images, for each device  [default: %(default)s]"
    )
    group.add_argument(
        "--precision", choices=["float32", "bfloat16"], default="bfloat16", help="of the forward pass  [default: %(default)s]"
    )
    group.add_argument("--evaluate-every", type=_positive, default=1, metavar="EPOCHS", help="[default: %(default)s]")


def _settings() -> str:
    """What there is without a recipe, and with each."""
    columns = {"neither": DEFAULTS, **{name: {**DEFAULTS, **recipe} for name, recipe in RECIPES.items()}}
    rows = [["", *columns]]
    rows += [[f"--{name.replace('_', '-')}", *(f"{settings[name]}" for settings in columns.values())] for name in DEFAULTS]
    return "settings without and with a recipe:\n" + "\n".join(
        "  " + "".join(f"{cell:<17}" for cell in row).rstrip() for row in rows
    )


def _folder(text: str) -> Path:
    if not Path(text).is_dir():
        raise argparse.ArgumentTypeError(f"no such folder: {text!r}")
    return Path(text)


def _file(text: str) -> Path:
    if not Path(text).is_file():
        raise argparse.ArgumentTypeError(f"no such file: {text!r}")
    return Path(text)


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected 1 or more, got {number}")
    return number
