"""Runs that are killed and stores that are damaged: nothing may be lost, nothing wrong, nothing done twice.

Kills: real runs over 300 images in 75 shards, both encodings, whose worker, nanny, scheduler or client is sent SIGKILL, at
random moments and around commits, then started again. Damage: single bits, cuts and deletions in finished stores, one at a
time: found, not served, mended. Memory: the peaks of client and worker against the number of shards. For Linux.

python benchmarks/soak.py [--short] [--seed N] [--only kills damage memory] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import random
import secrets
import sys
import tempfile
from collections import Counter, deque
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))

from photos import make_photos
from pictures import draw, paint
from PIL import Image
from soak_damage import Tried, try_all
from soak_kills import KILLS_A_LIFE, Soak
from soak_life import ENCODINGS, Kill, Outcome
from soak_memory import Peak, copies, peak
from soak_setups import Local, Separate
from toy_annotators import NAMES

PARTS = ("kills", "damage", "memory")
IMAGES, UNREADABLE = 300, 12
FULL = {(Local, "worker"): 6, (Local, "client"): 6, **{(Separate, kind): 4 for kind in Separate.kinds}}
SHORT = {(Local, "worker"): 1, (Local, "client"): 1}
"""Kills by set-up and kind, for each encoding; every second one is aimed at a commit."""
GIVING_UP, GIVING_UP_SHORT = ("--retry-failed", "repair") * 2, ("repair",)
"""Ways in which commits are removed from a finished store."""
DAMAGES = {"bits flipped": 1000, "files cut short": 200, "files deleted": 100}
DAMAGES_SHORT = {"bits flipped": 40, "files cut short": 20, "files deleted": 10}
MEMORY, MEMORY_SHORT = ((1_000, 4), (4_000, 4), (16_000, 4), (16_000, 64)), ((200, 4), (400, 4))
"""Images, and how many of them a shard has."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="two minutes instead of most of an hour")
    parser.add_argument("--seed", type=int, help="[default: a new one, printed]")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep stores and logs there")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    seed = options.seed if options.seed is not None else secrets.randbelow(2**31)
    print(f"seed {seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="soak-") as scratch:
        folder = Path(scratch) if options.keep is None else options.keep
        folder.mkdir(parents=True, exist_ok=True)
        found = {part: PART[part](folder, seed, options.short) for part in options.only}
    print("\n".join(line for part, what in found.items() for line in REPORT[part](what)))
    problems = [f"{part}: {problem}" for part, what in found.items() for problem in getattr(what, "problems", ())]
    print("\n".join([f"problems: {len(problems)}", *problems]))
    if options.json is not None:
        options.json.write_text(json.dumps({"seed": seed, **found}, indent=1, default=_plain))
    return bool(problems)


def kills(folder: Path, seed: int, short: bool) -> Outcome:
    """Live lives until every planned kill has happened."""
    encodings = list(ENCODINGS)[-1:] if short else list(ENCODINGS)
    soak = Soak(paint_images(folder / "images", IMAGES), folder, seed, encodings)
    waiting = planned(seed, encodings, SHORT if short else FULL)
    while waiting:
        first = waiting.popleft()
        same = [blow for blow in waiting if (blow.setup, blow.encoding) == (first.setup, first.encoding)]
        chosen = [first, *same[: KILLS_A_LIFE - 1]]
        for blow in chosen[1:]:
            waiting.remove(blow)
        waiting.extend(soak.live(chosen))
        _tell(f"{soak.outcome.lives} lives, {len(soak.outcome.kills)} kills, {len(soak.outcome.problems)} problems")
    for encoding in encodings:
        for how in GIVING_UP_SHORT if short else GIVING_UP:
            soak.give_up(how, encoding)
            _tell(f"{soak.outcome.lives} lives, {len(soak.outcome.kills)} kills, {len(soak.outcome.problems)} problems")
    print(file=sys.stderr)
    return soak.outcome


def planned(seed: int, encodings: list[str], counts: dict[tuple[type[Local | Separate], str], int]) -> deque[Kill]:
    """The kills that are to happen, in random order."""
    found = [
        Kill(setup.name, encoding, kind, aimed=number % 2 == 0)
        for encoding in encodings
        for (setup, kind), count in counts.items()
        for number in range(count)
    ]
    random.Random(seed).shuffle(found)
    return deque(found)


def damage(folder: Path, seed: int, short: bool) -> Tried:
    tried = try_all(paint_images(folder / "few", 64), folder, DAMAGES_SHORT if short else DAMAGES, seed, _tell)
    print(file=sys.stderr)
    return tried


def memory(folder: Path, seed: int, short: bool) -> list[Peak]:
    """Many tiny images for the client; real photographs and the default annotator for the worker."""
    place = folder / "memory"
    place.mkdir()
    picture = paint(place / "picture.png", "red", "blue")
    toy = ("--model", "toy_annotators:colours", "--top-k", 3)
    sizes, found = MEMORY_SHORT if short else MEMORY, []
    folders = copies(picture, place, {images for images, _ in sizes})
    for images, shard_size in sizes:
        found.append(peak("toy", folders[images], place, shard_size, *toy))
        _tell(f"{images} images")
    photos = make_photos(place, 32 if short else 512)
    found.append(peak("efficientnet-lite0", photos, place, 4))
    print(file=sys.stderr)
    return found


def paint_images(root: Path, count: int) -> Path:
    """Noisy pictures of two colours, in folders by the first one; a few files that are no images."""
    for number in range(count):
        rng = np.random.default_rng(number)
        first, second = rng.choice(NAMES, 2)
        noise = Image.fromarray(rng.integers(0, 255, (40, 60, 3), np.uint8))
        file = root / first / f"{number:04}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.blend(draw(first, second), noise, rng.uniform(0, 0.6)).save(file)
        if number % (count // UNREADABLE) == 5:
            file.write_text("no image")
    return root


def report_kills(found: Outcome) -> list[str]:
    by_kind = Counter(f"{blow.kind} ({blow.setup})" for blow in found.kills)
    by_encoding = Counter(blow.encoding for blow in found.kills)
    resumed = f"{np.mean(found.resumed_after):.1f} s on average" if found.resumed_after else "never"
    return [
        f"kills: {len(found.kills)}, {sum(blow.aimed for blow in found.kills)} of them at commits; {_counts(by_encoding)}",
        f"  {_counts(by_kind)}",
        f"lives of stores: {found.lives}; runs of annotate: {found.runs}; commits: {found.commits:,}",
        f"shards committed at the kills, and untouched in the end: {found.kept:,}",
        f"rows that were read after the ends of runs, all of them right: {found.rows_checked:,}",
        f"shards with data but no commit, written again: {found.written_again}",
        f"shards committed twice: {_counts(found.committed_again)}",
        f"from a command's start to its first commit, after a kill: {resumed}",
    ]


def report_damage(found: Tried) -> list[str]:
    return [
        *(
            f"{kind}: {count:,}, {found.found[kind]:,} found, {found.mended[kind]:,} mended"
            for kind, count in found.done.items()
        ),
        f"stores that did not open for it: {found.stores_refused:,}; rows refused in the others: {found.rows_refused:,}",
    ]


def report_memory(found: list[Peak]) -> list[str]:
    return [
        f"{peak.what}: {peak.images:,} images, {peak.shards:,} shards: client {peak.client / 1e6:.0f} MB (own "
        f"{peak.client_own / 1e6:.0f}), worker {peak.worker / 1e6:.0f} MB (own {peak.worker_own / 1e6:.0f})"
        for peak in found
    ]


PART: dict[str, Any] = {"kills": kills, "damage": damage, "memory": memory}
REPORT: dict[str, Any] = {"kills": report_kills, "damage": report_damage, "memory": report_memory}


def _counts(found: Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(found.items())) or "none"


def _tell(text: str) -> None:
    print(f"\r{text}", end="", file=sys.stderr, flush=True)


def _plain(value: Any) -> Any:
    return vars(value)


if __name__ == "__main__":
    sys.exit(main())
