"""What encoding costs on the annotator's device, against a ResNet-50's forward pass at 224 px (random weights do for that).

python benchmarks/encoder_cost.py [--batch 8] [--device cpu|cuda] [--rounds 15] [--json FILE]
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from maps import pack_dense
from measuring import Line, arguments, cores, ratios, report, side_by_side

from labelstore.pipelines import defaults
from labelstore.pipelines.annotators import AnnotatorSpec, load_annotator
from labelstore.pipelines.encoders import encode

GOAL = 0.05


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    torch.set_num_threads(cores())
    annotator = load_annotator(AnnotatorSpec("torchvision:resnet50", random_weights=True), options.device)
    batch = torch.randn(options.batch, 3, 224, 224, generator=torch.Generator().manual_seed(0)).to(options.device)
    logits = annotator.dense(batch)

    def wait() -> None:
        if options.device == "cuda":
            torch.cuda.synchronize()

    def encoder(name: str) -> Callable[[int], None]:
        info = pack_dense(logits[:1].cpu().numpy(), encoding=name).info

        def run(_: int) -> None:
            encode(logits, info)  # ends in host memory: no waiting

        return run

    def forward(_: int) -> None:
        annotator.dense(batch)
        wait()

    ways = {"forward": forward, **{name: encoder(name) for name in defaults.BASELINES}}
    seconds = side_by_side(ways, [range(4)] * options.rounds)
    where = f"{cores()} threads" if options.device == "cpu" else torch.cuda.get_device_name()
    print(f"ResNet-50 at 224 px, batches of {options.batch}, {where}, medians of {options.rounds} rounds")
    for name, values in seconds.items():
        print(f"  {name:10} {sorted(values)[len(values) // 2] / options.batch * 1000:8.3f} ms an image")
    lines = [
        Line(f"{name} / forward pass", ratios(seconds[name], seconds["forward"]), unit="", most=GOAL)
        for name in defaults.BASELINES
    ]
    report("cost of encoding", lines, options.json, seconds_a_batch=seconds, batch=options.batch, device=where)


if __name__ == "__main__":
    main()
