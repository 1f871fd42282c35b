"""Carries a Dockerfile's instructions out without Docker: every RUN in a clean Debian, as root or USER, with ENV and ARG."""

from __future__ import annotations

import io
import json
import re
import shlex
import shutil
import string
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import chroot
from docker.utils import exclude_paths
from dockerfile_parse import DockerfileParser


@dataclass(frozen=True)
class Image:
    """What a stage comes to: a file system, and how commands are run in it."""

    root: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    arguments: Mapping[str, str] = field(default_factory=dict)
    user: str = "0:0"
    folder: str = "/"
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    healthcheck: tuple[str, ...] = ()

    def place(self) -> chroot.Place:
        """Return where this image's commands run."""
        home = {} if self.user.startswith("0") else {"HOME": "/home/labelstore"}
        return chroot.Place(self.root, self.user, self.folder, {**home, **self.environment})


class Builder:
    """Builds the stages of a Dockerfile below a folder.

    Parameters
    ----------
    context
        The folder that the image is built from; its .dockerignore is heeded.
    work
        Where the stages' file systems are made.
    base
        A file system that stands for the base image.
    arguments
        As `docker build --build-arg`.
    host
        What RUN steps find of this machine: mounts and variables, none of which stay in the image.
    """

    def __init__(
        self,
        context: Path,
        work: Path,
        base: Path,
        arguments: Mapping[str, str],
        host: chroot.Place,
        tell: Callable[[str], object] = print,
    ):
        self._work, self._base, self._given, self._host, self._tell = work, base, arguments, host, tell
        self._context = work / "context"
        self._stages: dict[str, Image] = {}
        self._globals: dict[str, str] = {}
        copy_context(context, self._context)

    def build(self, dockerfile: Path) -> Image:
        """Carry everything out, and return the last stage."""
        parser = DockerfileParser(fileobj=io.BytesIO(dockerfile.read_bytes()), env_replace=False)
        image, name = None, ""
        for step in parser.structure:
            word, value = step["instruction"], step["value"]
            if word == "COMMENT":
                continue
            self._tell(f"{word} {re.sub(r'[ ]{2,}', ' ', value)}")
            if word == "FROM":
                image, name = self._from(value)
            elif image is None:
                self._globals.update(self._arguments(value))
            else:
                image = self._step(image, word, value)
            if image is not None:
                self._stages[name] = image
        if image is None:
            raise SystemExit(f"{dockerfile}: no FROM")
        return image

    def _from(self, value: str) -> tuple[Image, str]:
        source, word, name = value.split()
        if word != "AS":
            raise SystemExit(f"FROM {value}: expected a name behind AS")
        earlier = self._stages.get(source)
        root = self._work / name
        subprocess.run(["cp", "-a", "--reflink=auto", str(earlier.root if earlier else self._base), str(root)], check=True)
        return (replace(earlier, root=root, arguments={}) if earlier else Image(root, {"PATH": chroot.PATH})), name

    def _step(self, image: Image, word: str, value: str) -> Image:
        text = string.Template(value).safe_substitute({**image.arguments, **image.environment})
        if word == "RUN":
            self._run(image, value)
        elif word == "COPY":
            self._copy(image, shlex.split(text))
        elif word == "WORKDIR":
            Path(f"{image.root}{text}").mkdir(parents=True, exist_ok=True)
            return replace(image, folder=text)
        elif word == "ARG":
            return replace(image, arguments={**image.arguments, **self._arguments(value)})
        elif word == "ENV":
            added = dict(part.split("=", 1) for part in shlex.split(text))
            return replace(image, environment={**image.environment, **added})
        elif word == "USER":
            return replace(image, user=text)
        elif word in ("ENTRYPOINT", "CMD"):
            return replace(image, **{"entrypoint" if word == "ENTRYPOINT" else "command": tuple(json.loads(value))})
        elif word == "HEALTHCHECK":
            return replace(image, healthcheck=tuple(json.loads(value.split(" CMD ", 1)[1])))
        elif word not in ("LABEL", "EXPOSE"):
            raise SystemExit(f"{word}: not known here")
        return image

    def _arguments(self, value: str) -> dict[str, str]:
        name, _, default = value.partition("=")
        return {name: self._given.get(name, self._globals.get(name, default))}

    def _run(self, image: Image, command: str) -> None:
        variables = {**self._host.environment, **image.arguments, **image.environment}
        place = replace(image.place(), environment={"HOME": "/root", **variables}, mounts=self._host.mounts)
        done = chroot.run(place, ["/bin/sh", "-c", command])
        if done.returncode:
            raise SystemExit(f"RUN {command}: exit code {done.returncode}")

    def _copy(self, image: Image, words: list[str]) -> None:
        options = [word for word in words if word.startswith("--")]
        *sources, target = [word for word in words if not word.startswith("--")]
        stage = next((option.removeprefix("--from=") for option in options if option.startswith("--from=")), None)
        origin = self._stages[stage].root if stage else self._context
        into = Path(f"{image.root}/{target if target.startswith('/') else f'{image.folder}/{target}'}")
        for source in sources:
            found = origin / source.lstrip("/")
            if found.is_dir():
                into.parent.mkdir(parents=True, exist_ok=True)
                subprocess.run(["cp", "-aT", "--reflink=auto", str(found), str(into)], check=True)
            else:
                folder = into if target.endswith("/") else into.parent
                folder.mkdir(parents=True, exist_ok=True)
                shutil.copy2(found, into)


def copy_context(source: Path, target: Path) -> None:
    """Copy what Docker would be sent of a folder."""
    lines = (source / ".dockerignore").read_text().splitlines()
    for name in exclude_paths(str(source), [line for line in lines if line and not line.startswith("#")]):
        if (source / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source / name, target / name)
