"""Who may import whom, and what `import labelstore` may load."""

from __future__ import annotations

import ast
import subprocess
import sys
from importlib.metadata import distribution
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = {"labelstore": "labelstore", "pipelines": "labelstore.pipelines", "cli": "labelstore.cli"}
MODULES = {
    ".".join([package, *path.relative_to(ROOT / folder).with_suffix("").parts]).removesuffix(".__init__"): path
    for folder, package in FOLDERS.items()
    for path in sorted((ROOT / folder).rglob("*.py"))
}
TORCH = ("labelstore.torch", "labelstore.pipelines.annotators", "labelstore.pipelines.encoders")
DASK = (
    "labelstore.pipelines.cluster",
    "labelstore.pipelines.local_nodes",
    "labelstore.pipelines.run",
    "labelstore.pipelines.watchdog",
)
ALLOWED = {
    "dask": DASK,
    "distributed": DASK,
    "tornado": ("labelstore.pipelines.dashboard",),
    "click": ("labelstore.cli",),
    "rich": ("labelstore.cli",),
    "zarr": (
        "labelstore.pipelines.arrays",
        "labelstore.pipelines.store",
        "labelstore.pipelines.sink",
        "labelstore.pipelines.store_files",
        "labelstore.pipelines.metadata",
        "labelstore.pipelines.group_file",
        "labelstore.pipelines.free_place",
        "labelstore.pipelines.exchange.array_file",
        "labelstore.pipelines.exchange.export_arrays",
        "labelstore.storage.remote",
        "labelstore.storage.patient_store",
        "labelstore.storage.objects",
    ),
    "numcodecs": (),
    "torch": (
        *TORCH,
        "labelstore.pipelines.maps",
        "labelstore.pipelines.device_decode",
        "labelstore.pipelines.shard",
        "labelstore.pipelines.probe",
        "labelstore.pipelines.preflight",
        "labelstore.pipelines.shard_rows",
        "labelstore.pipelines.exchange",
        "labelstore.pipelines.cluster",
        "labelstore.pipelines.resources",
        "labelstore.pipelines.resizing",
    ),
    "torchvision": (*TORCH, "labelstore.pipelines.device_decode"),
    "timm": ("labelstore.pipelines.annotators",),
    "fsspec": ("labelstore.pipelines.sources", "labelstore.storage.remote", "labelstore.storage.patient_store"),
    "pyarrow": ("labelstore.pipelines.sources",),
    "PIL": (
        "labelstore.image_formats",
        "labelstore.pixels",
        "labelstore.pipelines.images",
        "labelstore.pipelines.resizing",
        "labelstore.cli",
        "labelstore.torch",
    ),
    "numba": (
        "labelstore.encodings.compiling",
        "labelstore.encodings.topk_compiled",
        "labelstore.encodings.spectral_compiled",
    ),
}


def imported(path: Path) -> set[str]:
    """All modules that a file names in imports, at any depth of its code."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names.add(node.module or "")
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return names


def within(module: str, packages: tuple[str, ...]) -> bool:
    return any(module == package or module.startswith(package + ".") for package in packages)


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_one_way(module):
    names = imported(MODULES[module])
    if not within(module, ("labelstore.cli",)):
        assert not [name for name in names if within(name, ("labelstore.cli",))]
    if not within(module, ("labelstore.cli", "labelstore.pipelines")):
        assert not [name for name in names if within(name, ("labelstore.pipelines",))]
    assert not [name for name in names if within(name, ("cli", "pipelines"))], "the bare folder names are no packages"


@pytest.mark.parametrize("module", MODULES)
def test_heavy_packages_stay_in_their_rooms(module):
    for name in imported(MODULES[module]):
        rooms = ALLOWED.get(name.partition(".")[0])
        assert rooms is None or within(module, rooms), f"{module} imports {name}"


def loaded_by(statement: str) -> set[str]:
    code = f"{statement}\nimport sys\nprint(*sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(out.stdout.split())


def test_import_labelstore_is_light(picture_store):
    heavy = {"torch", "dask", "distributed", "click", "rich", "zarr", "numcodecs", "PIL", "timm"}
    assert not loaded_by("import labelstore") & (heavy | {"numba", "multiprocessing"})
    read = f"from labelstore import LabelMapReader; LabelMapReader({str(picture_store)!r}).pool([0], [[0, 0, 1, 1]])"
    assert not loaded_by(read) & heavy


def test_planning_knows_no_engine():
    assert not loaded_by("import labelstore.pipelines.plan") & {"dask", "distributed", "zarr", "torch"}


def test_what_a_worker_loads_first_is_light():
    """Its environment variables are set after its class is imported."""
    assert not loaded_by("import labelstore.pipelines.local_nodes") & {"torch", "zarr"}


def test_one_package_is_installed_and_no_bare_names():
    names = (distribution("labelstore").read_text("top_level.txt") or "").split()
    assert names == ["labelstore"]
    out = subprocess.run([sys.executable, "-c", "import cli"], capture_output=True, text=True, cwd="/")
    assert "ModuleNotFoundError" in out.stderr
