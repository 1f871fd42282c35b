"""Which way round maps are, told by photographs."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from pictures import paint
from runs import SERIAL, Heard

from labelstore import LabelMapReader
from labelstore.errors import OptionError
from labelstore.pipelines.annotators.spec import AnnotatorSpec, EnsembleSpec
from labelstore.pipelines.exchange.axes import AxesCheck
from labelstore.pipelines.exchange.export_pt import export_pt
from labelstore.pipelines.exchange.pt_import import PtImport, import_pt
from labelstore.pipelines.exchange.selection import Selection
from labelstore.pipelines.observer import Observer

TOY = EnsembleSpec((AnnotatorSpec("toy_annotators:colours"),))


@pytest.fixture(scope="module")
def halves(tmp_path_factory):
    """Pictures of two colours, one above or beside the other."""
    root = tmp_path_factory.mktemp("halves")
    colours = ("red", "green", "blue", "yellow")
    for number in range(12):
        paint(root / f"{number:02}.png", colours[number % 4], colours[(number + 1 + number // 4) % 4])
    return root


@pytest.fixture
def maps(halves, make_store, tmp_path):
    """The toy annotator's maps of these, exported with axes ``yx`` and ``xy``."""
    make_store(halves, tmp_path / "made.zarr")
    for axes in ("yx", "xy"):
        export_pt(str(tmp_path / "made.zarr"), str(tmp_path / axes), axes, Selection(), Observer())
    return tmp_path


def run(folder, store, images, observer=None, **more):
    classes = LabelMapReader(folder.parent / "made.zarr").num_classes
    check = AxesCheck(str(images), TOY, "cpu")
    asked = PtImport(str(folder), check=check, extension=".png", num_classes=classes)
    return import_pt(replace(asked, **more), str(store), SERIAL, observer or Observer())


@pytest.mark.parametrize("axes", ["yx", "xy"])
def test_photographs_tell_the_axes(maps, halves, axes):
    heard = Heard()
    run(maps / axes, maps / "s.zarr", halves, heard)
    reader = LabelMapReader(maps / "s.zarr")
    assert reader.info.imported.axes == axes
    made = LabelMapReader(maps / "made.zarr")
    assert (reader.read(list(made.ids)).classes == made.read(list(made.ids)).classes).all()
    said = heard.said[0]
    assert said.startswith(f"axes: {axes}. mean distance of crops' labels from those of toy_annotators:colours: yx ")
    assert said.endswith(" standard errors apart)")
    assert "(12 images, " in said


def test_maps_that_are_the_same_both_ways_do_not_tell(maps, halves):
    for file in (maps / "yx").glob("*.pt"):
        tensor = torch.load(file)
        torch.save(tensor[:, :, :1, :1].expand(tensor.shape).clone(), file)
    with pytest.raises(
        OptionError, match=r"\(12 images, 0\.0 standard errors apart\): that does not tell. Say --axes yourself"
    ):
        run(maps / "yx", maps / "s.zarr", halves)
    assert not (maps / "s.zarr").exists()


def test_photographs_without_maps_do_not_tell(maps, halves, pictures):
    with pytest.raises(OptionError, match="expected photographs that have maps below .*, found 0"):
        run(maps / "yx", maps / "s.zarr", pictures)


def test_an_annotator_of_other_classes_cannot_look(maps, halves):
    with pytest.raises(OptionError, match=r"--check: expected an annotator of the maps' 3 classes, got one of "):
        run(maps / "yx", maps / "s.zarr", halves, num_classes=3)
