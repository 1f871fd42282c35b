"""Files that name an annotator's classes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from labelstore.errors import OptionError
from labelstore.pipelines.class_file import read_classes

NAMES, IDS = ("cat", "a dog, or two", "é 漢"), ("n01", "n02", "n03")


def read(file: Path, text: str | bytes, count: int = 3):
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    return read_classes(str(file), count)


@pytest.mark.parametrize("end", ["", "\n", "\n\n"])
@pytest.mark.parametrize("line", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_text_with_a_name_a_line(tmp_path, end, line, mark):
    assert read(tmp_path / "c.txt", mark + ("\n".join(NAMES) + end).replace("\n", line)) == (NAMES, None)


def test_text_with_ids_and_names(tmp_path):
    text = "".join(f"{one}\t{name}\n" for one, name in zip(IDS, NAMES, strict=True))
    assert read(tmp_path / "c.tsv", text) == (NAMES, IDS)
    assert read(tmp_path / "c.tsv", text.replace("\t", " \t ")) == (NAMES, IDS)


@pytest.mark.parametrize(
    ("value", "ids"),
    [
        (list(NAMES), None),
        ([list(pair) for pair in zip(IDS, NAMES, strict=True)], IDS),
        ({str(number): name for number, name in enumerate(NAMES)}, None),
        ({str(number): name for number, name in reversed(list(enumerate(NAMES)))}, None),
        ({str(number): pair for number, pair in enumerate(zip(IDS, NAMES, strict=True))}, IDS),
        ([[number, name] for number, name in enumerate(NAMES)], ("0", "1", "2")),
    ],
)
def test_json(tmp_path, value, ids):
    assert read(tmp_path / "c.json", json.dumps(value)) == (NAMES, ids)


@pytest.mark.parametrize(
    "text",
    [
        "{",
        '"abc"',
        "3",
        "null",
        "[1, 2, 3]",
        '[["a"], ["b"], ["c"]]',
        '[["n1", "a", "x"], "b", "c"]',
        '[{"id": "n1", "name": "a"}, "b", "c"]',
        '["a", "b", null]',
        '[["n1", null], "b", "c"]',
        '{"a": "cat", "b": "dog", "c": "cow"}',
        '{"1": "a", "2": "b", "3": "c"}',
    ],
)
def test_json_of_another_kind(tmp_path, text):
    with pytest.raises(
        OptionError, match=r"--classes .*c\.json: expected a JSON list of names or of \[id, name\], or an object"
    ):
        read(tmp_path / "c.json", text)


@pytest.mark.parametrize(("name", "text"), [("c.txt", "a\nb\nc\nd\n"), ("c.json", '["a", "b", "c", "d"]')])
@pytest.mark.parametrize("count", [3, 5])
def test_another_number_of_classes(tmp_path, name, text, count):
    with pytest.raises(OptionError, match=rf"{name}: expected {count} classes, as the annotator has, got 4"):
        read(tmp_path / name, text, count)


def test_a_class_without_a_name(tmp_path):
    for name, text in (("c.txt", "a\n \nc\n"), ("c.txt", "n1\ta\nn2\t\nn3\tc\n"), ("c.json", '["a", "", "c"]')):
        with pytest.raises(OptionError, match=rf"{name}: expected a name for every class, got none for class 1"):
            read(tmp_path / name, text)


def test_ids_for_some_classes_alone(tmp_path):
    with pytest.raises(OptionError, match="expected an id for every class or for none, got 2 for 3"):
        read(tmp_path / "c.txt", "n1\ta\nb\nn3\tc\n")


def test_a_file_that_is_empty(tmp_path):
    for name in ("c.txt", "c.json"):
        with pytest.raises(OptionError, match=rf"{name}: "):
            read(tmp_path / name, "")


def test_a_file_that_is_not_utf8(tmp_path):
    with pytest.raises(OptionError, match=r"c\.txt: expected UTF-8 text: .* at byte 3"):
        read(tmp_path / "c.txt", "caf\xe9\nb\nc\n".encode("latin-1"))


def test_a_file_that_cannot_be_read(tmp_path):
    with pytest.raises(OptionError, match=r"nowhere\.txt: cannot be read: No such file"):
        read_classes(str(tmp_path / "nowhere.txt"), 3)
    with pytest.raises(OptionError, match="cannot be read: Is a directory"):
        read_classes(str(tmp_path), 3)
