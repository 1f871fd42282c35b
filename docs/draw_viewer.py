"""Draws docs/viewer.jpg and docs/viewer-images.jpg: the viewer in a real browser, on real photographs by a real ImageNet model.

python docs/draw_viewer.py        (needs chromium, and Playwright of the extra [test])
"""

from __future__ import annotations

import io
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image

from labelstore.cli.web.serve import serving
from labelstore.cli.web.site import Site
from labelstore.pipelines.annotate import annotate
from labelstore.pipelines.observer import Observer
from labelstore.pipelines.resources import plan_resources
from labelstore.pipelines.samples import copy_samples
from labelstore.pipelines.settings import Settings

DOCS = Path(__file__).parent
BOTH = "n02124075/cup-and-cat.jpg"
CLASSES = {
    "chelsea.png": "n02124075",  # Egyptian cat
    "coffee.png": "n07920052",  # espresso
    "flower.jpg": "n11939491",  # daisy
    "rocket.jpg": "n04008634",  # projectile
    "motorcycle_left.png": "n03791053",  # motor scooter
    "motorcycle_right.png": "n03791053",
    "china.jpg": "n03781244",  # monastery
    "astronaut.png": "n04266014",  # space shuttle
    "hubble_deep_field.jpg": "n04266014",
    "coins.png": "n03908618",  # pencil box
    "grass.png": "n07802026",  # hay
}


def lay_out(folder: Path) -> Path:
    """Put the sample photographs into folders of their classes, and one more: a cup and a cat side by side."""
    samples, images = copy_samples(folder / "samples"), folder / "photos"
    for name, chosen in CLASSES.items():
        (images / chosen).mkdir(parents=True, exist_ok=True)
        shutil.copy(samples / name, images / chosen / name)
    both = Image.new("RGB", (900, 600))
    cup, cat = (Image.open(samples / name).convert("RGB") for name in ("coffee.png", "chelsea.png"))
    both.paste(cup.crop((130, 0, 430, 400)).resize((450, 600), Image.Resampling.LANCZOS), (0, 0))
    both.paste(cat.crop((90, 0, 315, 300)).resize((450, 600), Image.Resampling.LANCZOS), (450, 0))
    both.save(images / BOTH, quality=95)
    return images


def shoot(page: Any, url: str, file: Path) -> None:
    """Open an address, and save what is seen."""
    page.goto(url)
    page.wait_for_load_state("networkidle")
    page.wait_for_timeout(500)
    Image.open(io.BytesIO(page.screenshot())).convert("RGB").save(file, quality=82, optimize=True)
    print(f"{file}: {file.stat().st_size / 1000:.0f} kB")


def main() -> None:
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium") or sys.exit("no chromium here: apt-get install chromium")
    with tempfile.TemporaryDirectory() as folder:
        store = f"{folder}/photos.zarr"
        annotate(lay_out(Path(folder)), store, Settings(), plan_resources(0, "cpu", None), Observer())
        site = Site(store)
        site.location = "photos.zarr"
        with serving(site) as url, sync_playwright() as playwright:
            site.surveyor.finished.wait(60)
            browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
            light = browser.new_page(viewport={"width": 1180, "height": 800}, color_scheme="light")
            shoot(light, f"{url}/image?id={BOTH}&box=0.03,0.12,0.46,0.9&crops=0", DOCS / "viewer.jpg")
            dark = browser.new_page(viewport={"width": 1180, "height": 640}, color_scheme="dark")
            shoot(dark, f"{url}/?maps=1", DOCS / "viewer-images.jpg")
            browser.close()


if __name__ == "__main__":
    main()
