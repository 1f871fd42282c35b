"""Images behind URLs with credentials: they are read with them, and nothing keeps or shows these."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from commands import TOY, run_here
from folders import contents
from pictures import paint
from webserver import WebServer, serve

from labelstore import LabelMapReader
from labelstore.errors import ImagesError
from labelstore.pipelines.sources import ImagesSpec, list_images

SECRET = "hunter2"
QUERY = f"X-Amz-Credential={SECRET}&v=1&X-Amz-Signature={SECRET}"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[WebServer]:
    for number in range(3):
        paint(tmp_path / "www" / "red" / f"{number}.png", "red")
    with serve(tmp_path / "www") as found:
        yield found


def with_user(server: WebServer) -> str:
    return server.url.replace("://", f"://user:{SECRET}@")


def listed(tmp_path: Path, *lines: str, name: str = "list.txt") -> str:
    (tmp_path / name).write_text("\n".join(lines) + "\n")
    return str(tmp_path / name)


def test_images_are_had_with_them_and_kept_without(server: WebServer, tmp_path: Path) -> None:
    images = listed(tmp_path, *(f"{with_user(server)}/red/{number}.png?{QUERY}" for number in range(4)))
    store = tmp_path / "labels.zarr"
    done = run_here("annotate", images, "--store", store, *TOY)
    assert (done.code, "3 of 4 images annotated, 1 failed" in done.out) == (0, True)
    assert any(QUERY in path for path in server.asked)
    host = server.url.removeprefix("http://")
    assert list(LabelMapReader(store).ids) == [f"{host}/red/{number}.png?v=1" for number in range(4)]
    shown = [done, run_here("info", store), run_here("info", store, "--json"), run_here("verify", store)]
    shown.append(run_here("verify", store, "--sample", 1, "--images", images, "--model", "toy_annotators:colours"))
    assert [name for name, data in contents(store).items() if SECRET.encode() in data] == []
    assert [each for each in shown if SECRET in each.out + each.err] == []


def test_a_root_with_them_is_recorded_without(server: WebServer, tmp_path: Path) -> None:
    images = listed(tmp_path, *(f"red/{number}.png" for number in range(3)))
    store = tmp_path / "labels.zarr"
    done = run_here("annotate", images, "--images-root", with_user(server), "--store", store, *TOY, "--json")
    assert done.code == 0
    assert LabelMapReader(store).info.images_root == server.url
    assert [name for name, data in contents(store).items() if SECRET.encode() in data] == []
    assert SECRET not in done.out + done.err


@pytest.mark.parametrize("kind", ["gone", "secret", "cut"])
def test_reasons_of_rows_and_errors_do_not_show_them(server: WebServer, tmp_path: Path, kind: str) -> None:
    paint(tmp_path / "www" / "cut.png", "red")
    store = tmp_path / "labels.zarr"
    done = run_here("annotate", listed(tmp_path, f"{with_user(server)}/{kind}.png?{QUERY}"), "--store", store, *TOY)
    shown = [done, run_here("info", store), run_here("annotate", f"{with_user(server)}/{kind}.csv?{QUERY}", *TOY)]
    assert all(each.out + each.err for each in shown)
    assert [each for each in shown if SECRET in each.out + each.err] == []
    assert [name for name, data in contents(store).items() if SECRET.encode() in data] == []


def test_ids_that_differ_in_nothing_else_are_refused(tmp_path: Path) -> None:
    images = listed(tmp_path, f"https://h/x.png?sig={SECRET}1", f"https://h/x.png?sig={SECRET}2")
    with pytest.raises(ImagesError, match=r"two images have the id 'h/x\.png'") as caught:
        list_images(images)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("image_id", [f"https://u:{SECRET}@h/x.png", f"h/x.png?sig={SECRET}", f"x.png?v=1&token={SECRET}"])
def test_given_ids_with_them_are_refused(tmp_path: Path, image_id: str) -> None:
    images = listed(tmp_path, "path,id", f"x.png,{image_id}", name="list.csv")
    with pytest.raises(ImagesError, match=r"expected no credentials in it .*\(--id-column\)") as caught:
        list_images(ImagesSpec((images,)))
    assert SECRET not in str(caught.value)


def test_so_are_those_of_parquet(tmp_path: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    image = {"bytes": paint(tmp_path / "x.png", "red").read_bytes(), "path": f"https://h/x.png?Signature={SECRET}"}
    parquet.write_table(pyarrow.table({"image": [image]}), tmp_path / "x.parquet")
    with pytest.raises(ImagesError, match=r"expected no credentials in it .* --id-column @row") as caught:
        list_images(str(tmp_path / "x.parquet"))
    assert SECRET not in str(caught.value)
    assert list_images(ImagesSpec((str(tmp_path / "x.parquet"),), id_column="@row")).ids == ("x.parquet/00000000",)
