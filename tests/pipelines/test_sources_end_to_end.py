"""The same photographs from every kind of source, and sources with something wrong, through `labelstore annotate`."""

from __future__ import annotations

import os
import random
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow
import pytest
from commands import TOY, run_here
from fsspec.registry import _registry as loaded_filesystems
from packing import pack_parquet, pack_tar
from pictures import paint
from PIL import Image
from pyarrow import parquet
from webserver import WebServer, serve

from labelstore import FailedRowError, LabelMapReader
from labelstore.pipelines.samples import copy_samples
from labelstore.pipelines.sources import bytesio

FOLDERS, IN_EACH = ("beside", "café au lait", "n01440764", "Zebra"), 16
SIDE = (250, 188)


@pytest.fixture(autouse=True)
def settings(tmp_path, monkeypatch):
    """A current folder and a cache of their own; servers are given up soon."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(bytesio, "SECONDS", 0.5)
    monkeypatch.setattr(bytesio, "PAUSE", 0.01)


# The same photographs


@pytest.fixture(scope="module")
def photographs(tmp_path_factory) -> Path:
    """64 JPEGs cut out of the sample photographs, in four folders."""
    root = tmp_path_factory.mktemp("photographs")
    sources = [Image.open(path).convert("RGB") for path in sorted(copy_samples(root / "samples").iterdir())]
    rng = np.random.default_rng(5)
    for number in range(len(FOLDERS) * IN_EACH):
        source = sources[number % len(sources)]
        width, height = (int(side * rng.uniform(0.4, 1.0)) for side in source.size)
        left, top = int(rng.integers(source.width - width + 1)), int(rng.integers(source.height - height + 1))
        file = root / "train" / FOLDERS[number // IN_EACH] / f"{number % IN_EACH}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        source.crop((left, top, left + width, top + height)).resize(SIDE).save(file, quality=90)
    return root / "train"


def names_of(photographs: Path) -> list[str]:
    """The photographs' ids, in no order."""
    names = sorted(file.relative_to(photographs).as_posix() for file in photographs.rglob("*.jpg"))
    random.Random(3).shuffle(names)
    return names


def as_folder(photographs: Path, packed: Path, url: str) -> tuple[str, ...]:
    return (f"{photographs}/",)


def as_list(photographs: Path, packed: Path, url: str) -> tuple[str, ...]:
    lines = [f"{photographs}/{name}" if number % 2 else f"./{name}" for number, name in enumerate(names_of(photographs))]
    (packed / "list.txt").write_text("\ufeff" + "\r\n".join(lines) + "\r\n", encoding="utf-8")
    return f"{packed}/list.txt", "--images-root", str(photographs)


def as_table(photographs: Path, packed: Path, url: str) -> tuple[str, ...]:
    lines = [f'{name.split("/")[0]},"{photographs}/{name}",{name}' for name in names_of(photographs)]
    (packed / "table.csv").write_text("\n".join(["label,path,id", *lines]))
    return (f"{packed}/table.csv",)


def as_tar(photographs: Path, packed: Path, url: str) -> tuple[str, ...]:
    names = names_of(photographs)
    for shard in range(3):
        pack_tar(packed / f"train-{shard:03}.tar", {name: (photographs / name).read_bytes() for name in names[shard::3]})
    return (f"{packed}/train-{{002..000}}.tar",)


def as_parquet(photographs: Path, packed: Path, url: str) -> tuple[str, ...]:
    names, classes = names_of(photographs), sorted(FOLDERS)
    for part, mine in enumerate((names[:37], names[37:])):
        images = {name: (photographs / name).read_bytes() for name in mine}
        labels = [classes.index(name.split("/")[0]) for name in mine]
        pack_parquet(packed / f"train-{part}.parquet", images, labels, classes, rows_a_group=11)
    return (f"{packed}/train-*.parquet",)


def as_list_of_a_server(photographs: Path, packed: Path, url: str) -> tuple[str, ...]:
    (packed / "photographs").symlink_to(photographs)
    (packed / "list.txt").write_text("\n".join(names_of(photographs)))
    return f"{url}/list.txt", "--images-root", f"{url}/photographs/"


def as_tar_of_a_server(photographs: Path, packed: Path, url: str) -> tuple[str, ...]:
    as_tar(photographs, packed, url)
    return (f"{url}/train-{{000,002,001}}.tar",)


WAYS = (as_list, as_table, as_tar, as_parquet, as_list_of_a_server, as_tar_of_a_server)


@pytest.fixture
def web(tmp_path) -> Iterator[WebServer]:
    (tmp_path / "web").mkdir()
    with serve(tmp_path / "web") as server:
        yield server


def maps(store: str) -> dict[str, tuple[bytes, bytes, str]]:
    """Every image's classes and scores as a reader gives them, and its label."""
    reader = LabelMapReader(store)
    found = reader.read(list(reader.ids))
    labels = [reader.info.target_names[target] for target in reader.targets]
    rows = zip(reader.ids, found.classes, found.scores, labels, strict=True)
    return {name: (classes.tobytes(), scores.tobytes(), label) for name, classes, scores, label in rows}


def annotated(source: tuple[str, ...], store: str, *options: object) -> dict[str, tuple[bytes, bytes, str]]:
    ended = run_here("annotate", *source, *options, "--store", store, "--strict")
    assert ended.code == 0, ended.err
    return maps(store)


def check_same_everywhere(photographs: Path, web: WebServer, *options: object) -> None:
    expected = annotated(as_folder(photographs, web.root, web.url), "folder.zarr", *options)
    assert len(expected) == len({scores for _, scores, _ in expected.values()}) == 64
    assert {label for _, _, label in expected.values()} == set(FOLDERS)
    for way in WAYS:
        found = annotated(way(photographs, web.root, web.url), f"{way.__name__}.zarr", *options)
        different = [name for name in expected if found.get(name) != expected[name]]
        assert (different, len(found)) == ([], 64), way.__name__


def test_the_same_photographs_get_the_same_maps_from_every_source(photographs, web):
    check_same_everywhere(photographs, web, *TOY, "--encoding", "topk")


@pytest.mark.slow
def test_a_real_annotator_gives_the_same_photographs_the_same_bytes_from_every_source(photographs, web):
    check_same_everywhere(photographs, web, "--workers", "0", "--device", "cpu", "--encoding", "topk")


# Sources with something wrong


@pytest.fixture
def pictures_here(tmp_path) -> list[str]:
    """Four pictures in the current folder."""
    return [paint(tmp_path / f"{name}.png", name).name for name in ("red", "green", "blue", "white")]


def failures(*source: object) -> dict[str, str]:
    """Annotate all that can be, and return why the others could not."""
    ended = run_here("annotate", *source, *TOY)
    assert ended.code == 0, ended.err
    assert "Traceback" not in ended.err
    reader = LabelMapReader("labels.zarr")
    assert set(reader.ids) >= {"red.png", "green.png", "blue.png", "white.png"}
    found = {}
    for image_id in reader.ids:
        try:
            assert reader[image_id].scores.any()
        except FailedRowError as error:
            found[image_id] = str(error).split("has no label map: ")[-1]
            assert f"  {image_id}: " in ended.err
    return found


def refusal(*source: object) -> str:
    """Annotate what cannot be, and return why."""
    ended = run_here("annotate", *source, *TOY)
    assert (ended.code, ended.out) == (1, "")
    assert ended.message.startswith("Error: ")
    assert "Traceback" not in ended.err
    assert not Path("labels.zarr").exists()
    return ended.message


def test_files_that_a_list_names_and_that_are_not_there_fail_their_rows(pictures_here):
    Path("folder.png").mkdir()
    os.mkfifo("pipe.png")
    Path("empty.png").touch()
    Path("page.png").write_text("<!doctype html><html></html>")
    Path("itself.png").symlink_to("itself.png")
    wrong = ["none.png", "folder.png", "pipe.png", "empty.png", "page.png", "itself.png", "red.png/below.png"]
    Path("list.txt").write_text("\n".join([*wrong, *pictures_here]))
    found = failures("list.txt")
    assert list(found) == sorted(wrong)
    for name, reason in {
        "none.png": "No such file or directory",
        "folder.png": "cannot be read: not a file",
        "pipe.png": "cannot be read: not a file",
        "empty.png": "the file is empty",
        "page.png": "it is a web page, no image",
        "itself.png": "Too many levels of symbolic links",
        "red.png/below.png": "Not a directory",
    }.items():
        assert reason in found[name]


def test_pictures_behind_urls_that_are_not_there_hang_or_are_cut_fail_their_rows(pictures_here, web):
    for name in ("flaky.png", "cut.png", "stall.png"):
        paint(web.root / name, "red")
    wrong = {
        "none.png": "not found (404)",
        "secret.png": "the server answers 403",
        "hang.png": "no answer in 0.5 s (tried 3 times)",
        "stall.png": "no answer in 0.5 s (tried 3 times)",
        "cut.png": "the answer is cut short (tried 3 times)",
        "page.png": "it is a web page, no image",
    }
    Path("list.txt").write_text("\n".join([*(f"{web.url}/{name}" for name in (*wrong, "flaky.png")), *pictures_here]))
    found = failures("list.txt")
    assert len(found) == len(wrong)
    for name, reason in wrong.items():
        assert reason in found[f"{web.url.split('://')[1]}/{name}"]


def test_a_member_of_a_tar_file_that_the_server_does_not_give_fails_its_row(pictures_here, web):
    names = {name: Path(name).read_bytes() for name in pictures_here}
    pack_tar(web.root / "a.tar", names)
    pack_tar(web.root / "whole.tar", names)
    assert failures(f"{web.url}/a.tar") == {}
    shutil.rmtree("labels.zarr")
    assert "whole.tar: cannot be read: the server sends whole files only, no parts of them" in refusal(f"{web.url}/whole.tar")


@pytest.mark.parametrize("kind", ["txt", "csv", "tar", "parquet"])
def test_a_source_behind_a_url_that_is_not_there_ends_the_run_in_words(kind, web):
    assert f"{web.url}/none.{kind}: cannot be read" in refusal(f"{web.url}/none.{kind}")
    assert "not found (404)" in refusal(f"{web.url}/none.{kind}")
    assert "no answer in 0.5 s (tried 3 times)" in refusal(f"{web.url}/hang.{kind}")
    assert "expected a folder of images" in refusal(f"{web.url}/none.{kind}".rpartition("/")[2].removesuffix(f".{kind}"))


def test_a_tar_file_that_is_cut_short_ends_the_run(pictures_here):
    members = {name: Path(name).read_bytes() for name in pictures_here}
    whole = pack_tar(Path("train.tar"), members).read_bytes()
    Path("train.tar").write_bytes(whole[:1600])
    assert "train.tar: cut short: green.png should end at byte" in refusal("train.tar")


def test_parquet_files_that_are_cut_short_or_hold_something_else_end_the_run(pictures_here):
    whole = pack_parquet(Path("a.parquet"), {name: Path(name).read_bytes() for name in pictures_here}).read_bytes()
    Path("cut.parquet").write_bytes(whole[:-100])
    assert "cut.parquet: cannot be read as Parquet: " in refusal("cut.parquet")
    parquet.write_table(pyarrow.table({"image": ["red.png"]}), "texts.parquet")
    assert "column 'image' has type string, expected binary" in refusal("texts.parquet")


def test_pages_of_a_parquet_file_that_are_damaged_fail_their_rows(pictures_here):
    images = {name: Path(name).read_bytes() for name in pictures_here}
    rest = {f"{number}.png": bytes([number]) * 100_000 for number in range(4)}
    file = pack_parquet(Path("a.parquet"), {**images, **rest}, rows_a_group=4)
    data = bytearray(file.read_bytes())
    at = parquet.ParquetFile(file).metadata.row_group(1).column(0).dictionary_page_offset
    data[at : at + 20] = bytes(20)
    file.write_bytes(data)
    found = failures("a.parquet")
    assert sorted(found) == sorted(rest)
    assert all("row group 1 cannot be read from row 0 on" in reason for reason in found.values())


def test_two_places_with_one_id_are_named(pictures_here):
    Path("list.csv").write_text("path,id\nred.png,a\ngreen.png,b\nblue.png,a\n")
    found = refusal("list.csv")
    assert "list.csv: two images have the id 'a': " in found
    assert "/red.png and " in found
    assert "/blue.png" in found
    for name in ("one", "two"):
        pack_tar(Path(f"{name}.tar"), {"0.png": b"", "same.png": b""} if name == "one" else {"same.png": b""})
    assert "one.tar: same.png (at byte 1024) and two.tar: same.png (at byte 512)" in refusal("one.tar", "two.tar")


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("list.txt", "", "list.txt: an empty list; expected a path or URL a line"),
        ("list.txt", "red.png\n../blue.png\n", "image id '../blue.png': expected no '..' in it"),
        ("list.txt", "red.png\nnosuch://bucket/x.png\n", "nosuch://bucket/x.png: Protocol not known"),
        ("list.csv", "path,label\nred.png,1\nblue.png\n", "list.csv, line 3: expected 2 fields as in the header, got 1"),
        ("list.csv", "path,label\nred.png,1\n,2\n", "list.csv, line 3: expected a path in column 'path', got none"),
        ("list.csv", 'path,label\nred.png,"' + "x" * 200_000, "list.csv, line 2: no CSV: field larger than field limit"),
    ],
)
def test_lists_that_are_none_end_the_run(name, text, expected):
    Path(name).write_text(text)
    assert expected in refusal(name)


@pytest.mark.parametrize("protocol", ["s3", "gs"])
def test_where_a_package_is_missing_its_extra_is_named(protocol, monkeypatch):
    for package in ("s3fs", "gcsfs"):
        monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(loaded_filesystems, protocol, raising=False)  # what another test has loaded
    assert f"pip install 'labelstore[{protocol}]'" in refusal(f"{protocol}://bucket/train-{{000..009}}.tar")
    assert f"pip install 'labelstore[{protocol}]'" in refusal(f"{protocol}://bucket/photographs")
    Path("list.txt").write_text(f"{protocol}://bucket/x.png\n")
    assert f"pip install 'labelstore[{protocol}]'" in refusal("list.txt")
