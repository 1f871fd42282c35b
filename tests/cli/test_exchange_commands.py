"""`import`, `export`, `merge`, `subset` and `convert` as their users run them."""

from __future__ import annotations

import json

import numpy as np
import pytest
from commands import run_here, run_installed
from pt_files import CLASSES, IDS, write_folder

from labelstore import LabelMapReader

HERE = ("--workers", "0")


@pytest.fixture
def folder(tmp_path):
    return write_folder(tmp_path / "maps")


def test_from_files_to_a_store_and_back_by_the_installed_command(folder, tmp_path):
    done = run_installed("import", "relabel", "maps", "s.zarr", "--axes", "yx", "--num-classes", CLASSES, cwd=tmp_path)
    assert done.code == 0, done.err
    lines = done.out.splitlines()
    assert lines[0] == "6 of 6 images imported, 0 failed"
    assert lines[-1] == "Next:  labelstore inspect a/1.JPEG --store s.zarr"
    shown = run_installed("inspect", "a/1.JPEG", "--store", "s.zarr", cwd=tmp_path)
    assert shown.code == 0, shown.err
    done = run_installed("export", "relabel", "s.zarr", "back", "--axes", "yx", cwd=tmp_path)
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith("6 images exported: back (")
    again = run_installed("import", "relabel", "maps", "s.zarr", "--axes", "yx", "--num-classes", CLASSES, cwd=tmp_path)
    assert again.message == "Nothing to do: all 6 images are in s.zarr."


def test_info_says_where_maps_come_from(folder, tmp_path):
    store = tmp_path / "s.zarr"
    run_here("import", "relabel", folder, store, "--axes", "xy", "--num-classes", CLASSES, "--annotator", "theirs", *HERE)
    shown = " ".join(run_here("info", store).out.split())
    assert f"imported as relabel, axes xy, from {folder}".replace(" ", "") in shown.replace(" ", "")
    assert "annotator theirs input not recorded" in shown
    run_here("convert", store, tmp_path / "c.zarr", "--encoding", "spectral", *HERE)
    shown = " ".join(run_here("info", tmp_path / "c.zarr").out.split())
    assert "imported as store" in shown
    assert "of crops: to those maps' labels, over 6 of the images" in shown


def test_errors_say_what_to_do(folder, tmp_path):
    for arguments, message in (
        (("import", "relabel", folder, "s.zarr"), "expected --axes yx, --axes xy or --check IMAGES, one of them"),
        (("import", "relabel", folder, "s.zarr", "--axes", "yx", "--check", folder), "expected --axes yx"),
        (("import", "relabel", folder, "s.zarr", "--axes", "yx", "--model", "resnet50"), "--model: goes with --check"),
        (("import", "relabel", folder, "s.zarr", "--axes", "zx"), "Invalid value for '--axes'"),
        (
            ("import", "relabel", folder, "s.zarr", "--axes", "yx", "--ext", "jpg"),
            "--ext jpg: expected an extension",
        ),
        (("import", "relabel", folder, "s.zarr", "--axes", "yx", "--tls-key", __file__), "go with --scheduler tls://"),
        (("import", "arrays", "x.npz", "s.zarr", "--ids", "nothing.txt"), "File 'nothing.txt' does not exist"),
        (("export", "relabel", "s.zarr", "maps"), "Missing option '--axes'"),
        (("export", "arrays", folder, "maps.csv"), "expected a name that ends in .npz or .zarr"),
        (("merge", "one.zarr", "s.zarr"), "expected two stores or more"),
        (("subset", "one.zarr", "s.zarr"), "expected --ids FILE or --match GLOB"),
    ):
        done = run_here(*arguments)
        assert done.code == 2, arguments
        assert message in done.message
    for arguments in (
        ("import", "relabel", tmp_path / "nowhere", tmp_path / "s.zarr", "--axes", "yx"),
        ("export", "arrays", tmp_path / "nowhere.zarr", tmp_path / "x.npz"),
        ("merge", tmp_path / "a.zarr", tmp_path / "b.zarr", tmp_path / "s.zarr"),
        ("subset", tmp_path / "a.zarr", tmp_path / "s.zarr", "--match", "*"),
        ("convert", tmp_path / "a.zarr", tmp_path / "s.zarr"),
    ):
        done = run_here(*arguments)
        assert (done.code, done.message.startswith("Error: ")) == (1, True), arguments
    assert not (tmp_path / "s.zarr").exists()


def test_bad_files_end_the_import_or_fail_alone(folder, tmp_path):
    (folder / "b" / "4.pt").write_bytes(b"not a tensor")
    arguments = ("import", "relabel", folder, tmp_path / "s.zarr", "--axes", "yx", "--num-classes", CLASSES, *HERE)
    done = run_here(*arguments)
    assert done.code == 1
    assert "b/4.pt: expected a tensor as torch.save writes it" in done.message
    done = run_here(*arguments, "--skip-bad", "--json")
    assert done.code == 0
    found = json.loads(done.out)
    assert (found["done"], found["failed"], found["failures"][0]["id"]) == (5, 1, "b/4.JPEG")
    assert found["imported"]["axes"] == "yx"
    assert run_here(*arguments, "--skip-bad", "--strict").code == 1


def test_a_log_of_json(folder, tmp_path):
    arguments = ("import", "relabel", folder, tmp_path / "s.zarr", "--axes", "yx", "--num-classes", CLASSES, *HERE)
    done = run_here(*arguments, "--log-format", "json")
    events = [json.loads(line)["event"] for line in done.err.splitlines()]
    assert events[-1] == "finished"
    assert {"phase", "plan", "rows"} <= set(events)


def test_stores_out_of_stores(topk_store, tmp_path):
    ids = list(LabelMapReader(topk_store).ids)
    (tmp_path / "ids.txt").write_text("\n".join(ids[:5]))
    done = run_here("subset", topk_store, tmp_path / "a.zarr", "--ids", tmp_path / "ids.txt", *HERE)
    assert done.out.splitlines()[0] == "5 of 5 images copied, 0 failed"
    (tmp_path / "ids.txt").write_text("\n".join(ids[5:]))
    assert run_here("subset", topk_store, tmp_path / "b.zarr", "--ids", tmp_path / "ids.txt", *HERE).code == 0
    done = run_here("merge", tmp_path / "a.zarr", tmp_path / "b.zarr", tmp_path / "c.zarr", *HERE)
    assert done.out.splitlines()[0] == "21 of 21 images merged, 0 failed"
    done = run_here("convert", tmp_path / "c.zarr", tmp_path / "d.zarr", "--encoding", "spectral", *HERE, "--json")
    assert json.loads(done.out)["imported"]["distance"]["images"] == 21
    done = run_here("export", "arrays", tmp_path / "c.zarr", tmp_path / "c.npz", "--json")
    assert json.loads(done.out)["images"] == 21
    done = run_here("import", "arrays", tmp_path / "c.npz", tmp_path / "e.zarr", *HERE)
    assert done.out.splitlines()[0] == "21 of 21 images imported, 0 failed"
    np.testing.assert_array_equal(
        LabelMapReader(tmp_path / "e.zarr").read(ids).scores, LabelMapReader(topk_store).read(ids).scores
    )
    done = run_here("export", "webdataset", tmp_path / "c.zarr", tmp_path / "tars", "--match", "red*")
    assert done.out.startswith("7 images exported: ")
    done = run_here("import", "webdataset", tmp_path / "tars", tmp_path / "f.zarr", *HERE)
    assert done.out.splitlines()[0] == "7 of 7 images imported, 0 failed"
    assert run_here("verify", tmp_path / "c.zarr").code == 0


@pytest.fixture
def topk_store(picture_store):
    return picture_store


def test_annotate_does_not_go_on_with_an_import(folder, pictures, tmp_path):
    store = tmp_path / "s.zarr"
    run_here("import", "relabel", folder, store, "--axes", "yx", "--num-classes", CLASSES, *HERE)
    done = run_here("annotate", pictures, "--store", store, "--extend", *HERE)
    assert done.code == 1
    assert "its maps were not annotated but imported (relabel); only the same import goes on with it" in done.message
    assert LabelMapReader(store).info.num_images == len(IDS)


@pytest.mark.parametrize("command", ["import", "export", "merge", "subset", "convert"])
def test_help_has_examples(command):
    shown = run_here(command, "--help")
    assert shown.code == 0
    assert f"labelstore {command} " in shown.out
