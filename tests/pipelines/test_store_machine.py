"""A store's life, at random: annotated in part, killed, gone on with, extended, damaged, verified, repaired, read.

Whatever happens, a label that is read is the right one for its image; what was committed and not damaged is never lost; and in
the end repair and annotate make the store whole.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from pictures import paint

from labelstore import LabelMapReader
from labelstore.errors import DamagedError, FormatError, LabelStoreError, StoreNotFoundError
from labelstore.pipelines.annotate import annotate
from labelstore.pipelines.observer import Observer
from labelstore.pipelines.repairing import repair_store
from labelstore.pipelines.resources import Resources
from labelstore.pipelines.settings import Settings
from labelstore.pipelines.verifying import verify_store
from labelstore.schema import Status

SERIAL = Resources(workers=0, device="cpu", threads=1, decode_threads=1, batch_size=4)
COLOURS = ("red", "green", "blue", "yellow", "cyan", "magenta")
GROUPS = 4
METADATA = {"zarr.json", "commits/zarr.json"}
pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")


def paint_group(folder: Path, group: int) -> list[str]:
    """Images of one group; those of later groups have longer ids, so that the ids' array is replaced now and then."""
    names = [f"{'x' * group}{colour}/{number}.png" for colour in COLOURS[group : group + 2] for number in range(3)]
    for place, name in enumerate(names):
        paint(folder / name, COLOURS[(group + place) % len(COLOURS)])
    return names


class StoreMachine(RuleBasedStateMachine):
    """The store, and what must be true of it."""

    @initialize(encoding=st.sampled_from(["topk", "spectral"]))
    def begin(self, encoding: str) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="store-machine-"))
        self.images, self.store = self.folder / "images", self.folder / "labels.zarr"
        self.choices = Settings(model="toy_annotators:colours", encoding=encoding, top_k=3)
        self.groups, self.all_have_rows = 1, False
        self.damaged: set[str] = set()
        self.safe: dict[str, bytes] = {}
        for group in range(GROUPS):
            paint_group(self.folder / "all", group)
        annotate(self.folder / "all", str(self.folder / "truth.zarr"), self.choices, SERIAL, Observer())
        self.truth = LabelMapReader(self.folder / "truth.zarr")
        paint_group(self.images, 0)

    def teardown(self) -> None:
        if hasattr(self, "folder"):
            try:
                self.make_whole()
            finally:
                shutil.rmtree(self.folder)

    def run(self) -> None:
        annotate(self.images, str(self.store), self.choices, SERIAL, Observer(), extend=True)

    @rule(operations=st.integers(0, 60))
    def annotate_and_be_killed(self, operations: int) -> None:
        """The process ends, without a word, before one of its operations on files."""
        child = os.fork()
        if child == 0:
            die_before(operations)
            try:
                self.run()
            except LabelStoreError:
                os._exit(3)
            finally:
                os._exit(0)
        os.waitpid(child, 0)

    @precondition(lambda self: not self.damaged)
    @rule()
    def annotate_all(self) -> None:
        self.run()
        reader = LabelMapReader(self.store)
        assert reader.info.num_images == 6 * self.groups
        assert np.isin(reader.status(), (Status.DONE, Status.HOLE)).all()
        assert verify_store(str(self.store), 1, Observer()).whole
        self.all_have_rows = True

    @precondition(lambda self: not self.damaged and self.groups < GROUPS)
    @rule()
    def more_images(self) -> None:
        paint_group(self.images, self.groups)
        self.groups, self.all_have_rows = self.groups + 1, False

    @precondition(lambda self: self.can_be_opened())
    @rule(which=st.integers(0, 2**20), where=st.integers(0, 2**20), how=st.sampled_from(["flip", "flip", "cut", "gone"]))
    def damage(self, which: int, where: int, how: str) -> None:
        """A flipped bit, a file cut short, a file gone."""
        files = sorted(file.relative_to(self.store).as_posix() for file in self.store.rglob("*") if self.may_be_damaged(file))
        if not files:
            return
        name = files[which % len(files)]
        file, content = self.store / name, (self.store / name).read_bytes()
        if how == "flip":
            bit = where % (8 * len(content))
            flipped = bytearray(content)
            flipped[bit // 8] ^= 1 << bit % 8
            file.write_bytes(flipped)
        elif how == "cut":
            file.write_bytes(content[: where % len(content)])
        else:
            file.unlink()
        self.damaged.add(name)
        assert not verify_store(str(self.store), 1, Observer()).whole

    @precondition(lambda self: self.can_be_opened())
    @rule()
    def repair(self) -> None:
        repair_store(str(self.store), 1, Observer(), agree=lambda _: True)
        found = verify_store(str(self.store), 1, Observer())
        lost = {"ids", "targets"} | {f"ids_{number}" for number in range(1, GROUPS + 1)}
        assert {problem.file.split("/")[0] for problem in found.problems} <= lost
        assert all(problem.message == "missing" for problem in found.problems)
        if not found.problems:
            self.damaged.clear()

    @rule()
    def make_whole(self) -> None:
        """Repair and annotate, as a user would."""
        if self.can_be_opened():
            repair_store(str(self.store), 1, Observer(), agree=lambda _: True)
        self.damaged.clear()
        self.annotate_all()
        reader = LabelMapReader(self.store)
        names = [name for name in reader.ids if name]
        np.testing.assert_array_equal(reader.read(names).classes, self.truth.read(names).classes)
        np.testing.assert_array_equal(reader.read(names).scores, self.truth.read(names).scores)

    @invariant()
    def what_is_read_is_right(self) -> None:
        try:
            reader = LabelMapReader(self.store)
            ids = list(reader.ids)
        except (StoreNotFoundError, FormatError, DamagedError):
            return
        for row, name in enumerate(ids):
            try:
                found = reader[row]
            except LabelStoreError:
                continue
            if not name:
                raise AssertionError(f"row {row} has a map and no id")
            np.testing.assert_array_equal(found.scores, self.truth[name].scores)
            np.testing.assert_array_equal(found.classes, self.truth[name].classes)

    @invariant()
    def what_was_committed_stays(self) -> None:
        """Until it is damaged: a killed run, or an extension, takes no row away."""
        commits = {file.name for file in self.store.glob("commits/c.*") if file.suffix not in (".partial", ".set-aside")}
        if self.damaged:
            self.kept: set[str] = set()
            return
        kept = getattr(self, "kept", set())
        assert kept <= commits
        self.kept = commits

    def can_be_opened(self) -> bool:
        """Whether there is a store, damaged or not: none before the last write of its creation."""
        group = self.store / "zarr.json"
        if group.exists() and b"labelstore_unfinished" in group.read_bytes():
            return False
        return any(
            (self.store / name).exists() and b"labelstore_seals" in (self.store / name).read_bytes() for name in METADATA
        )

    def may_be_damaged(self, file: Path) -> bool:
        """Not both copies of the metadata, and not more ids than the images can tell."""
        name = file.relative_to(self.store).as_posix()
        if not file.is_file() or file.name.endswith(".partial") or name == ".lock":
            return False
        if name in METADATA:
            return not self.damaged & METADATA and all((self.store / other).exists() for other in METADATA)
        array = name.split("/")[0]
        if array.startswith("ids") or array == "targets":
            return self.all_have_rows and not any(other.startswith(("ids", "targets")) for other in self.damaged)
        return True


def die_before(operations: int) -> None:
    """Let this process end before so many more of its renames, removals and openings of files."""
    left = [operations]

    def counted(plain):
        def call(*args, **kwargs):
            if left[0] == 0:
                os._exit(9)
            left[0] -= 1
            return plain(*args, **kwargs)

        return call

    for name in ("replace", "unlink", "open"):
        setattr(Path, name, counted(getattr(Path, name)))
    os.fsync = counted(os.fsync)


StoreMachine.TestCase.settings = settings(
    max_examples=int(os.environ.get("STORE_MACHINE_LIVES", "12")),
    stateful_step_count=int(os.environ.get("STORE_MACHINE_STEPS", "10")),
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # a life takes a second: shrinking would take many minutes
    suppress_health_check=list(HealthCheck),
)
TestStoreMachine = StoreMachine.TestCase
