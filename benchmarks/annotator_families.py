"""Families of classifiers as annotators, with random weights: is each location's logit the network's own, and at which sizes?

Each network is loaded as `labelstore annotate --model NAME --weights FILE` loads it; two errors say whether its dense logits
are its own (`labelstore.pipelines.annotators.load.Annotator`), a third number whether they could have been wrong: how much the
locations differ. Then it is asked for other input sizes. Exits with 1 if a network does not do what it is listed for.

python benchmarks/annotator_families.py [--match PATTERN ...] [--out FILE] [--json FILE] [--update docs/annotators.md]
"""

from __future__ import annotations

import argparse
import gc
import json
import re
import sys
import tempfile
import time
import warnings
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatch
from pathlib import Path

import timm
import torch
import torchvision
from measuring import arguments, cores
from torch import Tensor, nn

from labelstore.errors import AnnotatorError
from labelstore.pipelines.annotators import Annotator, AnnotatorSpec, load_annotator, timm_models, torchvision_models
from labelstore.pipelines.annotators.dense import TOLERANCE, WHAT_WORKS, relative_error

SIZES = (256, 475)
PAPERS = "timm:tf_efficientnet_l2.ns_jft_in1k_475"
LEAST_SPREAD = 100 * TOLERANCE
BEGIN, END = "<!-- families: made by `make families` -->", "<!-- end of families -->"

TIMM = """
    resnet10t resnext26ts seresnext26t_32x4d skresnet18 resnest14d res2net50_14w_8s resnetv2_18 resnet50_clip nf_regnet_b0
    test_nfnet repvgg_a0 mobileone_s0 dla46_c hrnet_w18_small ese_vovnet19b_slim_dw cs3darknet_focus_s hgnetv2_b0
    inception_v3 inception_next_atto dpn68 densenet121 efficientnet_b0 tf_efficientnet_lite0 tf_efficientnetv2_b0 mixnet_s
    mnasnet_small lcnet_035 tinynet_e mobilenetv1_100 mobilenetv2_035 mobilenetv3_small_050 mobilenetv4_conv_small_035
    ghostnet_050 repghostnet_050 rexnet_100 regnetx_002 regnety_002 convnext_atto convnextv2_atto mambaout_femto
    poolformer_s12 caformer_s18 swin_tiny_patch4_window7_224 swinv2_tiny_window8_256 vit_tiny_patch16_224
    deit_tiny_patch16_224 deit_tiny_distilled_patch16_224 deit3_small_patch16_224 beit_base_patch16_224
    eva02_tiny_patch14_336 cait_xxs24_224 xcit_nano_12_p16_224 mixer_s32_224 gmlp_ti16_224 resmlp_12_224 convit_tiny
    coat_lite_tiny coatnet_pico_rw_224 maxvit_pico_rw_256 pvt_v2_b0 twins_svt_small focalnet_tiny_srf gcvit_xxtiny
    mobilevit_xxs mobilevitv2_050 edgenext_xx_small efficientformer_l1 efficientformerv2_s0 efficientvit_b0 efficientvit_m0
    levit_128s fastvit_t8 hiera_tiny_224 davit_tiny nest_tiny mvitv2_tiny tnt_s_patch16_224 visformer_tiny repvit_m0_9
    shvit_s1 starnet_s050 swiftformer_xs tiny_vit_5m_224 fasternet_t0 lowformer_b0 botnet26t_256
"""
TORCHVISION = """
    resnet18 resnext50_32x4d wide_resnet50_2 efficientnet_b0 efficientnet_v2_s mobilenet_v2 mobilenet_v3_small mnasnet0_5
    shufflenet_v2_x0_5 squeezenet1_1 densenet121 regnet_x_400mf regnet_y_400mf convnext_tiny swin_t swin_v2_t vit_b_32
    maxvit_t googlenet inception_v3
"""
REFUSED = (
    "timm:vgg11",
    "timm:volo_d1_224",
    "timm:pit_ti_224",
    "timm:crossvit_9_240",
    "timm:coat_tiny",
    "timm:efficientvim_m1",
    "torchvision:vgg11",
    "torchvision:alexnet",
)
WORKING = (*(f"timm:{name}" for name in TIMM.split()), *(f"torchvision:{name}" for name in TORCHVISION.split()), PAPERS)


@dataclass
class Family:
    """What came out for one network; errors and spread relative to the largest logit."""

    model: str
    expected: bool
    parameters: int
    own_size: int
    linear_error: float | None = None
    row_error: float | None = None
    spread: float | None = None
    maps: dict[int, tuple[int, int]] = field(default_factory=dict)
    refused_sizes: dict[int, str] = field(default_factory=dict)
    refusal: str | None = None

    @property
    def problems(self) -> list[str]:
        """What is not as it should be."""
        if not self.expected or self.refusal is not None:
            if self.expected == (self.refusal is None):
                return []
            return ["is listed as refused, and works"] if self.refusal is None else [f"is listed as working: {self.refusal}"]
        found = []
        if self.linear_error is None or self.row_error is None or not min(self.linear_error, self.row_error) <= TOLERANCE:
            found.append(
                f"is off by {self.linear_error:.2g} (mean), {self.row_error:.2g} (row): at most {TOLERANCE:g} expected"
            )
        if self.spread is None or not self.spread >= LEAST_SPREAD:
            found.append(f"gives locations that differ by {self.spread:.2g} only: that would hide an error")
        return found


def measure(model: str, expected: bool, sizes: Sequence[int] = SIZES) -> Family:
    """Load a network at its own size and at others."""
    source, _, name = model.partition(":")
    build = {"timm": timm_models.build, "torchvision": torchvision_models.build}[source]
    torch.manual_seed(0)
    network = build(name, AnnotatorSpec(model, random_weights=True))
    module, own_size = network.module.eval(), network.preprocessing.input_size
    family = Family(model, expected, sum(map(Tensor.numel, module.parameters())), own_size)
    give_values(module, images(own_size, seed=1))
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder, "random.pth")
        torch.save(module.state_dict(), weights)
        del network, module
        try:
            annotator = load_annotator(AnnotatorSpec(model, weights=str(weights)))
        except AnnotatorError as error:
            family.refusal = str(error)
            return family
    check(family, annotator)
    del annotator
    for size in sorted({*sizes} - {own_size}):
        try:
            family.maps[size] = load_annotator(AnnotatorSpec(model, size, random_weights=True)).info.map_size
        except AnnotatorError as error:
            family.refused_sizes[size] = str(error)
    return family


def images(size: int, seed: int) -> Tensor:
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(seed))


@torch.inference_mode()
def give_values(module: nn.Module, batch: Tensor) -> None:
    """Values where a fresh network has next to none, which would hide errors: heads of zeros, layer scales, norms never fed."""
    generator = torch.Generator().manual_seed(2)
    for parameter in module.parameters():
        if parameter.max() - parameter.min() < 1e-3:
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d):
            norm.momentum = 1.0
            norm.train()
    module(batch)
    module.eval()


def check(family: Family, annotator: Annotator) -> None:
    """Fill in the errors, the mean's on a batch that the network has not been tested on."""
    batch = images(family.own_size, seed=3)
    whole, dense = annotator.whole(batch), annotator.dense(batch)
    mean = dense.mean((2, 3))
    family.linear_error = relative_error(mean, whole)
    family.row_error = annotator.row_error
    family.spread = float((dense - mean[:, :, None, None]).abs().max() / whole.abs().max())
    family.maps[family.own_size] = annotator.info.map_size


def markdown(families: Iterable[Family]) -> str:
    """Three tables: what works, which sizes are refused, which networks are."""
    working = [family for family in families if family.refusal is None]
    refused = [family for family in families if family.refusal is not None]
    lines = [f"timm {timm.__version__}, torchvision {torchvision.__version__}, torch {torch.__version__}."]
    if working:
        titles = ["", "parameters", "own size", "map", "mean", "row", *(f"{size} px" for size in SIZES)]
        lines += ["", *table(titles, map(row, working))]
    if reasons := size_refusals(working):
        lines += ["", *table(["why a size is refused", "of what"], reasons)]
    if refused:
        lines += [
            "",
            *table(["refused", "message"], ([f"`{family.model}`", brief(family.refusal or "")] for family in refused)),
        ]
    return "\n".join(lines) + "\n"


def table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    body = [" | ".join(cell.replace("|", "\\|") for cell in cells) for cells in [titles, *rows]]
    return [f"| {line} |" for line in [body[0], " | ".join(["---"] * len(titles)), *body[1:]]]


def row(family: Family) -> list[str]:
    known = {size: "x".join(map(str, found)) for size, found in family.maps.items()}
    sizes = [known.get(size, "no" if size in family.refused_sizes else "") for size in (family.own_size, *SIZES)]
    errors = [f"{error:.0e}" if error else "0" for error in (family.linear_error, family.row_error) if error is not None]
    return [f"`{family.model}`", f"{family.parameters / 1e6:.1f} M", f"{family.own_size} px", sizes[0], *errors, *sizes[1:]]


def size_refusals(families: Iterable[Family]) -> list[list[str]]:
    """Reasons, each with the networks and their sizes."""
    found: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for family in families:
        for size, message in family.refused_sizes.items():
            found[brief(message)][family.model].append(str(size))
    return [
        [reason, "; ".join(f"`{model}` {', '.join(sizes)}" for model, sizes in models.items())]
        for reason, models in found.items()
    ]


def brief(message: str) -> str:
    """A message without the network's name and what all of them end with."""
    text = re.sub(r"^\S+ (does not take images of .*?\): |failed on a batch .*?\]: )?", "", message)
    return text.removesuffix(WHAT_WORKS).strip()


def update(file: Path, text: str) -> None:
    """Put the tables between a page's marks."""
    page = file.read_text()
    if page.count(BEGIN) != 1 or page.count(END) != 1:
        raise SystemExit(f"{file}: expected the marks {BEGIN} and {END}, once each")
    before, rest = page.split(BEGIN)
    file.write_text(f"{before}{BEGIN}\n\n{text}\n{END}{rest.split(END)[1]}")


def run(models: Sequence[str]) -> list[Family]:
    """Measure one after the other, saying so."""
    families = []
    for number, model in enumerate(models, 1):
        start = time.perf_counter()
        family = measure(model, model in WORKING, () if model == PAPERS else SIZES)
        gc.collect()
        families.append(family)
        said = "refused" if family.refusal is not None else f"{family.maps[family.own_size]}, spread {family.spread:.2g}"
        print(f"{number}/{len(models)} {model}: {said}, {time.perf_counter() - start:.1f} s", file=sys.stderr, flush=True)
        for problem in family.problems:
            print(f"  {model} {problem}", file=sys.stderr, flush=True)
    return families


def main() -> None:
    parser: argparse.ArgumentParser = arguments(__doc__)
    parser.add_argument("--match", action="append", metavar="PATTERN", help="only these, as 'timm:*vit*'; may be repeated")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the tables there too")
    parser.add_argument("--update", type=Path, metavar="FILE", help="put the tables between the marks of a Markdown file")
    options = parser.parse_args()
    if options.update and options.match:
        parser.error("--update writes the whole table: leave --match out")
    models = [name for name in (*WORKING, *REFUSED) if any(fnmatch(name, pattern) for pattern in options.match or ["*"])]
    if not models:
        parser.error(f"--match {' '.join(options.match)}: none of {len(WORKING) + len(REFUSED)} networks")
    warnings.simplefilter("ignore")  # of libraries, about their own models
    torch.set_num_threads(cores())
    start = time.perf_counter()
    families = run(models)
    print(f"{len(models)} networks, {time.perf_counter() - start:.0f} s on {cores()} cores", file=sys.stderr)
    text = markdown(families)
    print(text, end="")
    if options.out:
        options.out.write_text(text)
    if options.update:
        update(options.update, text)
    if options.json:
        options.json.write_text(json.dumps([{**asdict(family), "problems": family.problems} for family in families], indent=2))
    sys.exit(any(family.problems for family in families))


if __name__ == "__main__":
    main()
