"""10,000 hostile requests to `labelstore view`: none may bring out what lies outside of the images' root, or a 5xx.

python benchmarks/fuzz_view.py [--requests 10000] [--seed 0]
"""

from __future__ import annotations

import re
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from measuring import arguments

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "support"))


def main() -> None:
    from hostile_requests import SECRET, lay_out, requests, send_all
    from runs import SERIAL

    from labelstore.cli.web.guard import Rules
    from labelstore.cli.web.serve import serving
    from labelstore.cli.web.site import Site
    from labelstore.pipelines.annotate import annotate
    from labelstore.pipelines.observer import Observer
    from labelstore.pipelines.settings import Settings

    parser = arguments(__doc__)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    answers: Counter[str] = Counter()
    problems: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        images, store = lay_out(Path(folder)), f"{folder}/labels.zarr"
        annotate(images, store, Settings(model="toy_annotators:colours", top_k=3), SERIAL, Observer())
        site = Site(store)
        with serving(site, Rules(rate=1e6, burst=1e6)) as url:
            start = time.perf_counter()
            hostile = requests(options.seed, options.requests, [*site.reader.ids], images)
            for request, answer in send_all(url, hostile):
                status = re.match(rb"HTTP/1\.1 (\d{3})", answer)
                answers[status[1].decode() if status else "hung up"] += 1
                if SECRET in answer or b"root:x:" in answer or (status and int(status[1]) >= 500):
                    problems.append(f"{request[:200]!r}: {answer[:200]!r}")
            seconds = time.perf_counter() - start
    print(f"{options.requests:,} requests in {seconds:.0f} s; answers: {dict(sorted(answers.items()))}")
    print("\n".join(problems[:20]))
    print(f"problems: {len(problems)}")
    sys.exit(bool(problems))


if __name__ == "__main__":
    main()
