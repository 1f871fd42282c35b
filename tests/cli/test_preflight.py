"""What is looked at before a run on somebody's cluster is begun: real workers, each with something wrong."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from commands import run_here, run_installed
from dask_cluster import Cluster, annotate_on
from folders import store_contents

COLOURS = ("--model", "toy_annotators:colours", "--top-k", "3", "--batch-size", "4")


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    with ExitStack() as stack:
        yield Cluster(stack, tmp_path / "cluster")


def refused(shown, store: Path) -> str:
    """A run that was not begun: one line of error, and no store."""
    assert (shown.code, shown.out) == (1, ""), shown.err
    assert not store.exists()
    lines = [line for line in shown.err.splitlines() if not line.startswith("Dask dashboard")]
    assert len(lines) == 1, shown.err
    return lines[0]


def with_version(folder: Path, name: str, version: str) -> dict[str, str]:
    """An environment in which a package seems to have another version."""
    info = folder / f"{name}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    support = Path(__file__).parent.parent / "support"
    return {"PYTHONPATH": os.pathsep.join([str(folder), str(support)])}


@pytest.mark.slow
def test_versions_differ(pictures, tmp_path, cluster):
    cluster.start_worker()
    cluster.start_worker(env=with_version(tmp_path / "other", "zarr", "9.8.7"))
    error = refused(annotate_on(cluster, pictures, tmp_path / "labels.zarr", *COLOURS), tmp_path / "labels.zarr")
    assert error.startswith("Error: 1 of 2 workers have other versions. tcp://127.0.0.1:")
    assert "has zarr 9.8.7 (here: " in error
    assert error.endswith("Nothing was begun")


@pytest.mark.slow
def test_an_annotator_that_workers_do_not_have(pictures, tmp_path, cluster, monkeypatch):
    (tmp_path / "mine").mkdir()
    shutil.copy(Path(__file__).parent.parent / "support" / "toy_annotators.py", tmp_path / "mine" / "my_own_annotators.py")
    cluster.start_worker()
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "mine"))
    mine = ("--model", "my_own_annotators:colours")
    error = refused(annotate_on(cluster, pictures, tmp_path / "labels.zarr", *mine), tmp_path / "labels.zarr")
    assert "1 of 1 workers cannot do the work. tcp://127.0.0.1:" in error
    assert "cannot load the annotator: " in error
    assert "my_own_annotators" in error


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("unshare") is None, reason="needs a mount of its own")
@pytest.mark.parametrize("hidden", ["images", "store"])
def test_a_folder_that_only_the_command_sees(pictures, tmp_path, cluster, hidden):
    images, stores = tmp_path / "images", tmp_path / "store"
    shutil.copytree(pictures, images)
    stores.mkdir()
    cover = f'mount -t tmpfs none "{tmp_path / hidden}" && exec "$@"'
    cluster.start_worker(prefix=("unshare", "--mount", "sh", "-c", cover, "sh"))
    cluster.start_worker()
    error = refused(annotate_on(cluster, images, stores / "labels.zarr", *COLOURS), stores / "labels.zarr")
    assert "1 of 2 workers cannot do the work. tcp://127.0.0.1:" in error
    if hidden == "images":
        assert f"cannot read the image {images}/" in error
        assert "No such file or directory" in error
    else:
        assert f"cannot see what the command sees as {stores / 'labels.zarr'}: it must be the same folder, on a disk" in error


@pytest.mark.slow
def test_a_clock_that_is_wrong(pictures, tmp_path, cluster):
    (tmp_path / "late").mkdir()
    late = "import time\nreal = time.time\ntime.time = lambda: real() - 3600\n"
    (tmp_path / "late" / "sitecustomize.py").write_text(late)
    support = Path(__file__).parent.parent / "support"
    cluster.start_worker(env={"PYTHONPATH": os.pathsep.join([str(tmp_path / "late"), str(support)])})
    error = refused(annotate_on(cluster, pictures, tmp_path / "labels.zarr", *COLOURS), tmp_path / "labels.zarr")
    assert re.search(r"has a clock that is 3[456]\d\d s off: set it right", error)


@pytest.mark.slow
def test_a_gpu_is_asked_for_that_workers_do_not_have(pictures, tmp_path, cluster):
    cluster.start_worker(env={"CUDA_VISIBLE_DEVICES": ""})
    cuda = ("--device", "cuda", *COLOURS)
    shown = annotate_on(cluster, pictures, tmp_path / "labels.zarr", *cuda)
    assert shown.code in (1, 2)
    assert not (tmp_path / "labels.zarr").exists()
    assert "--device cuda: " in shown.err


@pytest.mark.slow
def test_the_scheduler_file_does_as_well(pictures, tmp_path, cluster):
    cluster.start_worker()
    store = tmp_path / "labels.zarr"
    done = run_installed("annotate", pictures, "--store", store, "--scheduler-file", cluster.file, *COLOURS)
    assert done.code == 0, done.err
    run_here("annotate", pictures, "--store", tmp_path / "here.zarr", "--workers", 0, *COLOURS)
    assert store_contents(store) == store_contents(tmp_path / "here.zarr")


@pytest.mark.parametrize(("text", "reason"), [(None, "cannot be read"), ("{", "expected JSON"), ("{}", "expected JSON")])
def test_a_scheduler_file_that_is_none(pictures, tmp_path, text, reason):
    file = tmp_path / "scheduler.json"
    if text is not None:
        file.write_text(text)
    shown = run_here("annotate", pictures, "--store", tmp_path / "labels.zarr", "--scheduler-file", file)
    assert shown.code == 2
    assert f"--scheduler-file {file}: {reason}" in shown.message


class Authority:
    """Somebody who signs certificates."""

    def __init__(self, folder: Path, names: tuple[str, ...] = ("127.0.0.1",)) -> None:
        import trustme

        folder.mkdir()
        authority = trustme.CA()
        signed = authority.issue_cert(*names)
        self.ca, self.cert, self.key = (str(folder / name) for name in ("ca.pem", "cert.pem", "key.pem"))
        authority.cert_pem.write_to_path(self.ca)
        for blob in signed.cert_chain_pems:
            blob.write_to_path(self.cert, append=True)
        signed.private_key_pem.write_to_path(self.key)

    @property
    def options(self) -> tuple[str, ...]:
        return ("--tls-ca-file", self.ca, "--tls-cert", self.cert, "--tls-key", self.key)


@pytest.mark.slow
def test_over_tls(pictures, tmp_path):
    ours, foreign = Authority(tmp_path / "ours"), Authority(tmp_path / "foreign")
    store = tmp_path / "labels.zarr"
    with ExitStack() as stack:
        cluster = Cluster(stack, tmp_path / "cluster", protocol="tls", options=ours.options)
        cluster.start_worker()
        assert cluster.address.startswith("tls://")
        stranger = annotate_on(cluster, pictures, store, *foreign.options, *COLOURS)
        error = refused(stranger, store)
        assert "the scheduler and this command do not trust each other's certificates" in error
        without = annotate_on(cluster, pictures, store, *COLOURS)
        assert (without.code, store.exists()) == (2, False)
        assert "TLS needs --tls-ca-file, --tls-cert and --tls-key" in without.message
        no_pair = ("--tls-ca-file", ours.ca, "--tls-cert", ours.cert, "--tls-key", foreign.key)
        mixed = annotate_on(cluster, pictures, store, *no_pair, *COLOURS)
        assert (mixed.code, store.exists()) == (2, False)
        assert "cannot be used: " in mixed.message
        done = annotate_on(cluster, pictures, store, *ours.options, *COLOURS)
        assert done.code == 0, done.err
    run_here("annotate", pictures, "--store", tmp_path / "here.zarr", "--workers", 0, *COLOURS)
    assert store_contents(store) == store_contents(tmp_path / "here.zarr")


def test_tls_files_without_tls(pictures, tmp_path):
    (tmp_path / "ca.pem").write_text("")
    plain = run_here("annotate", pictures, "--scheduler", "tcp://127.0.0.1:1", "--tls-ca-file", tmp_path / "ca.pem")
    assert plain.code == 2
    assert "--tls-... goes with an address that begins with tls://" in plain.message
    alone = run_here("annotate", pictures, "--tls-ca-file", tmp_path / "ca.pem")
    assert alone.code == 2
    assert "go with --scheduler tls://" in alone.message


@pytest.mark.slow
def test_a_lost_client_is_followed_by_another(pictures, tmp_path, cluster):
    from commands import command_line, environment
    from dask_cluster import wait_until

    slow = ("--model", "unruly_annotators:slow", "--top-k", "3", "--batch-size", "4")
    cluster.start_worker()
    store = tmp_path / "labels.zarr"
    command = command_line("annotate", pictures, "--store", store, "--scheduler", cluster.address, *slow)
    with subprocess.Popen(command, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as first:
        wait_until(lambda: list(store.glob("commits/c.*")), "a shard is committed")
        first.kill()
    committed = {file.name: file.stat().st_mtime_ns for file in store.glob("commits/c.*")}
    done = annotate_on(cluster, pictures, store, *slow)
    assert done.code == 0, done.err
    assert all((store / "commits" / name).stat().st_mtime_ns == time for name, time in committed.items())
    run_here("annotate", pictures, "--store", tmp_path / "here.zarr", "--workers", 0, *slow)
    assert store_contents(store) == store_contents(tmp_path / "here.zarr")
