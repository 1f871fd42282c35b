"""Images' own labels, held against what the libraries that write such files read out of them."""

from __future__ import annotations

import warnings
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import webdataset
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from packing import pack_tar
from webdataset import autodecode, tariterators

from labelstore.errors import ImagesError
from labelstore.pipelines.sources import ImagesSpec, Listing, list_images

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of its own dependencies, at import
    import datasets

PICTURE = b"not decoded here"


@pytest.fixture(autouse=True, scope="module")
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


def own(listing: Listing) -> dict[str, int]:
    return dict(zip(listing.ids, listing.targets.tolist(), strict=True))


# Tar files


def test_a_label_belongs_to_the_full_stem(tmp_path):
    members = {"2021.05.01.jpg": PICTURE, "2021.05.01.cls": b"285", "2021.05.02.jpg": PICTURE, "2021.05.02.cls": b"967"}
    assert own(list_images(pack_tar(tmp_path / "x.tar", members))) == {"2021.05.01.jpg": 285, "2021.05.02.jpg": 967}


def test_a_label_of_no_stem_belongs_to_its_samples_images(tmp_path):
    members = dict.fromkeys(("a.left.jpg", "a.right.JPG", "b.jpg", "c.jpg"), PICTURE) | {"a.CLS": b" 3\n", "b.cls": b""}
    listing = list_images(pack_tar(tmp_path / "x.tar", members))
    assert own(listing) == {"a.left.jpg": 3, "a.right.JPG": 3, "b.jpg": -1, "c.jpg": -1}
    assert listing.notes == ("2 of 4 images have no label in the .cls members, and so none",)
    members = dict.fromkeys(("a.left.jpg", "a.right.jpg", ".a.jpg"), PICTURE)
    members |= {"a.left.cls": b"4", "a.cls": b"5", ".b.cls": b"6"}
    listing = list_images(ImagesSpec((str(pack_tar(tmp_path / "y.tar", members)),), hidden=True))
    assert own(listing) == {".a.jpg": -1, "a.left.jpg": 4, "a.right.jpg": 5}


@pytest.mark.parametrize(
    ("members", "words"),
    [
        (
            [("a.left.jpg", PICTURE), ("a.one.cls", b"1"), ("a.two.cls", b"2")],
            r"a.left.jpg: several labels of key 'a': 1 in .*x.tar: a.one.cls \(at byte \d+\), 2 in .*x.tar: a.two.cls",
        ),
        ([("a.jpg", PICTURE), ("a.cls", b"1"), ("a.cls", b"1")], r"two labels for 'a': .*a.cls \(at.* and .*a.cls \(at"),
        ([("a.jpg", PICTURE), ("a.cls", b"1"), ("a.CLS", b"2")], "two labels for 'a'"),
        ([("a.jpg", PICTURE), ("a.cls", b"\x89PNG")], r"x.tar: a.cls \(at byte 3584\): expected a class number, or a name"),
        ([("a.jpg", PICTURE), ("a.cls", b"1" * 300)], "expected a class number"),
        ([("a.jpg", PICTURE), ("a.cls", b"-3")], "expected whole numbers from 0, got -3"),
        ([("a.jpg", PICTURE), ("a.cls", b"9" * 30)], "labels: expected whole numbers from 0 to"),
    ],
)
def test_labels_that_differ_or_are_none_are_errors(tmp_path, members, words):
    with webdataset.TarWriter(str(tmp_path / "x.tar"), encoder=False) as tar:
        for name, data in members:
            key, _, ending = name.rpartition(".")
            tar.write({"__key__": key, ending: data})
    with pytest.raises(ImagesError, match=words):
        list_images(tmp_path / "x.tar")


def test_labels_that_are_stated_go_before_folders_and_it_is_said(tmp_path):
    for number, labels in enumerate([(b"281", b"504"), (b"504", b"281")]):
        folder = f"db-{number}"
        members = {f"{folder}/{at}.{end}": PICTURE if end == "jpg" else labels[at] for at in (0, 1) for end in ("jpg", "cls")}
        pack_tar(tmp_path / f"{folder}.tar", members)
    listing = list_images(ImagesSpec((f"{tmp_path}/db-{{0,1}}.tar",)))
    assert listing.targets.tolist() == [281, 504, 504, 281]
    assert listing.target_names is None
    assert listing.notes == ("Labels are taken from the .cls members; the folders (db-0, db-1) are not",)
    pack_tar(tmp_path / "words.tar", {"cat/0.jpg": PICTURE, "cat/0.cls": b"cat", "dog/0.jpg": PICTURE, "dog/0.cls": b"dog"})
    listing = list_images(tmp_path / "words.tar")
    assert (listing.targets.tolist(), listing.target_names, listing.notes) == ([0, 1], ("cat", "dog"), ())


KEYS = st.lists(st.text("ab.A/1", min_size=1, max_size=5), min_size=1, max_size=5, unique=True)
LABELS = st.none() | st.integers(-1, 9) | st.integers(-(2**33), 2**33)


@given(KEYS, st.data())
@settings(max_examples=80, deadline=None)
def test_tar_files_give_what_webdataset_gives(keys, data):
    assume(all(part for key in keys for part in key.split("/")) and not any(".." in key or "/./" in f"/{key}/" for key in keys))
    with TemporaryDirectory() as folder:
        file = Path(folder, "x.tar")
        with webdataset.TarWriter(str(file)) as tar:
            for key in keys:
                sample = dict.fromkeys(data.draw(st.sampled_from([["jpg"], ["l.jpg", "r.png"], ["L.jpg"]])), PICTURE)
                label = data.draw(LABELS)
                tar.write({"__key__": key, **sample} | ({} if label is None else {"cls": label}))
        try:
            listing = list_images(ImagesSpec((str(file),), hidden=True))  # webdataset takes hidden members
        except ImagesError:
            return
        try:
            samples = _read(file)
        except ValueError:
            return
    if len({sample["__key__"] for sample in samples}) < len(samples):
        return  # members of one key lie apart: webdataset asks that they do not, and makes several samples of them
    ours = {_as_webdataset_writes(name): target for name, target in own(listing).items()}
    if listing.target_names is None:
        for sample in samples:
            for suffix, label in _theirs(sample).items():
                assert ours[f"{sample['__key__']}.{suffix}"] == label


def _read(file: Path) -> list[dict[str, Any]]:
    """What `WebDataset(file).decode()` gives, by its own parts: as a whole it leaves files open."""
    decode = autodecode.Decoder([autodecode.basichandlers])
    with file.open("rb") as stream:
        members = tariterators.tar_file_expander([{"url": str(file), "stream": stream}])
        return [decode(sample) for sample in tariterators.group_by_keys(members)]


def _as_webdataset_writes(name: str) -> str:
    key, suffix = tariterators.base_plus_ext(name)
    return name if key is None else f"{key}.{suffix.lower()}"


def _theirs(sample: dict[str, Any]) -> dict[str, int]:
    """A sample's label of each image: of the suffix that goes with it, or the one that goes with no image."""
    images = [name for name in sample if name.endswith(("jpg", "png"))]
    with_images = {name[:-3] + "cls" for name in images}
    others = [sample[name] for name in sample if name.endswith("cls") and name not in with_images]
    found = {}
    for name in images:
        with_it = name[:-3] + "cls"
        found[name] = sample[with_it] if with_it in sample else (others[0] if others else -1)
        assert with_it in sample or len(set(others)) < 2, "several: must be an error"
    return found


# Parquet


NAMES = ("cat", "dog", "10", "2")
INTEGERS = [datasets.Value(kind) for kind in ("int8", "int32", "int64", "uint8", "uint16")]
COLUMNS = st.one_of(
    st.tuples(
        st.just(datasets.ClassLabel(names=list(NAMES))), st.lists(st.none() | st.integers(-1, 3), min_size=1, max_size=5)
    ),
    st.tuples(st.sampled_from(INTEGERS), st.lists(st.none() | st.integers(0, 120), min_size=1, max_size=5)),
    st.tuples(st.just(datasets.Value("int64")), st.lists(st.integers(-(2**40), 2**40), min_size=1, max_size=3)),
    st.tuples(
        st.sampled_from([datasets.Value("string"), datasets.Value("large_string")]),
        st.lists(st.none() | st.sampled_from(["cat", "dog", "1", "01", "12", "\u0663"]), min_size=1, max_size=5),
    ),
    st.tuples(st.just(datasets.Value("bool")), st.lists(st.none() | st.booleans(), min_size=1, max_size=5)),
    st.tuples(st.just(datasets.Value("float32")), st.lists(st.integers(0, 3).map(float), min_size=1, max_size=3)),
    st.tuples(st.just(datasets.List(datasets.Value("int64"))), st.lists(st.just([1, 2]), min_size=1, max_size=3)),
)


@given(COLUMNS, st.sampled_from(["label", "fine_label"]))
@settings(max_examples=60, deadline=None)
def test_parquet_files_give_what_datasets_gives(column, name):
    feature, values = column
    images = [{"bytes": PICTURE, "path": f"folder/{row}.png"} for row in range(len(values))]
    features = datasets.Features({"image": datasets.Image(decode=False), name: feature})
    with TemporaryDirectory() as folder:
        file = Path(folder, "x.parquet")
        datasets.Dataset.from_dict({"image": images, name: values}, features).to_parquet(str(file))
        theirs = datasets.Dataset.from_parquet(str(file), cache_dir=folder, keep_in_memory=True)
        assert theirs.features[name] == feature
        labels = theirs[name][:]
        chosen = ImagesSpec((str(file),), label_column=None if name == "label" else name)
        try:
            listing = list_images(chosen)
        except ImagesError:
            assert labels
            assert isinstance(labels[0], float | list) or min(labels) < -1 or max(labels) >= 2**31
            return
        if name != "label":
            unnamed = list_images(file)
            assert set(unnamed.targets.tolist()) == {-1}
            assert unnamed.notes == (f"No labels are taken. Columns that could be: {name}: choose with --label-column",)
    assert listing.target_names == (NAMES if isinstance(feature, datasets.ClassLabel) else listing.target_names)
    for target, label in zip(listing.targets.tolist(), labels, strict=True):
        if label is None:
            assert target == -1
        elif isinstance(label, str):
            assert (str(target) if listing.target_names is None else listing.target_names[target]) == label
        else:
            assert target == label
