"""What runs labelstore in containers is right as far as it can be told without Docker; `make try-image` runs the rest of it."""

from __future__ import annotations

import configparser
import hashlib
import json
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from threading import Thread
from typing import Any

import click
import jsonschema
import kubernetes_validate
import pytest
import yaml
from commands import environment
from compose import load
from distributed.cli import dask_scheduler, dask_worker
from dockerfile import copy_context
from dockerfile_parse import DockerfileParser
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from webserver import WebServer

from labelstore.cli.annotate import command as annotate_command
from labelstore.cli.main import cli
from labelstore.cli.view import command as view_command
from labelstore.version import __version__

ROOT = Path(__file__).parent.parent
DOCKER = ROOT / "docker"
COMPOSE, GPU = DOCKER / "compose.yaml", DOCKER / "compose.gpu.yaml"
SECRETS = {"AWS_ACCESS_KEY_ID": "name", "AWS_SECRET_ACCESS_KEY": "secret"}
NAMES = {"requirements.txt": "docker/requirements.txt", "requirements-cuda.txt": "docker/requirements-${DEVICE}.txt"}
COMMANDS = {
    ("labelstore", "annotate"): annotate_command,
    ("labelstore", "view"): view_command,
    ("dask", "scheduler"): dask_scheduler.main,
    ("dask", "worker"): dask_worker.main,
}


def tool(name: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    program = Path(sysconfig.get_path("scripts"), name)
    return subprocess.run([program, *map(str, arguments)], capture_output=True, text=True, check=False)


def instructions(word: str) -> list[str]:
    with (DOCKER / "Dockerfile").open("rb") as file:
        steps = DockerfileParser(fileobj=file, env_replace=False).structure
    return [step["value"] for step in steps if step["instruction"] == word]


def settings() -> configparser.ConfigParser:
    found = configparser.ConfigParser()
    found.read(ROOT / "setup.cfg")
    return found


def locked(name: str) -> dict[str, tuple[str, list[str]]]:
    """Version and hashes by package."""
    lines = (DOCKER / name).read_text().replace("\\\n", "").splitlines()
    found = {}
    for pin, *hashes in (line.split() for line in lines if not line.startswith("#")):
        package, version = pin.split("==")
        found[package] = version, hashes
    return found


def pinned(name: str) -> dict[str, str]:
    return {package: version for package, (version, _) in locked(name).items()}


def wanted(extras: str) -> list[Requirement]:
    """The requirements of the package with these extras, those that name extras of the package itself left out."""
    found = settings()
    lists = [found["options"]["install_requires"], *(found["options.extras_require"][extra] for extra in extras.split(","))]
    requirements = [Requirement(line) for text in lists for line in text.split("\n") if line]
    return [requirement for requirement in requirements if requirement.name != "labelstore"]


def parse(words: list[str]) -> click.Context:
    """Read a command line as its program does; nothing is run."""
    for start, command in COMMANDS.items():
        if tuple(words[: len(start)]) == start:
            ours = command is annotate_command  # a command keeps what its first context says of -h
            parent = click.Context(cli, **cli.context_settings) if ours else None
            return command.make_context(" ".join(start), words[len(start) :], parent)
    raise AssertionError(f"{words}: not a command of labelstore's or Dask's")


def runs(service: dict[str, Any]) -> str:
    return command_line(service)[0]


def command_line(service: dict[str, Any]) -> list[str]:
    """What a container of ours runs, or of somebody else's image what that is given."""
    (ours,) = (json.loads(value) for value in instructions("ENTRYPOINT"))
    entrypoint = ours if service["image"].startswith("labelstore:") else []
    return [*service.get("entrypoint", entrypoint), *service["command"]]


# The image.


def test_the_dockerfile_has_no_complaints():
    done = tool("hadolint", DOCKER / "Dockerfile")
    assert (done.returncode, done.stdout) == (0, "")


def test_it_is_pinned_and_runs_as_nobody_special():
    base, *stages = (value.split(" AS ")[0] for value in instructions("FROM"))
    assert (base, stages) == ("${BASE}", ["python", "python"])
    (default,) = (value for value in instructions("ARG") if value.startswith("BASE="))
    assert "@sha256:" in default
    assert instructions("USER") == ["1000:1000"]  # a number: Kubernetes' runAsNonRoot does not look names up
    assert len(instructions("HEALTHCHECK")) == 1
    assert f"VERSION={__version__}" in instructions("ARG")


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_its_versions_are_those_that_setup_cfg_asks_for(device):
    versions = {**pinned("requirements.txt"), **pinned(f"requirements-{device}.txt")}
    extras = runpy.run_path(str(DOCKER / "lock.py"))["EXTRAS"]
    for requirement in wanted(extras):
        version = versions[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version), f"{requirement}: {version}"
    assert pinned("requirements-cuda.txt").items() >= pinned("requirements-cpu.txt").items()
    (install,) = (value for value in instructions("RUN") if "venv" in value and "apt-get" in value)
    python = install.split()[-1 - install.split()[::-1].index("-m") - 1].removeprefix("python")
    assert SpecifierSet(settings()["options"]["python_requires"]).contains(python)


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-cuda.txt"])
def test_it_installs_the_bytes_that_were_there_and_no_others(name):
    """Those of PyTorch's own index are known only to a lock that names it."""
    found = locked(name)
    assert {"numpy", "torch"} & set(found)
    for package, (_, hashes) in found.items():
        assert 1 <= len(hashes) <= 2, package  # a wheel for each kind of machine, or one for all
        assert all(re.fullmatch(r"--hash=sha256:[0-9a-f]{64}", text) for text in hashes), package
    (install,) = (value for value in instructions("RUN") if "pip install" in value and "-r " in value and NAMES[name] in value)
    assert "--require-hashes" in install


def test_pip_refuses_other_bytes(tmp_path):
    """As the image's step does, of a wheel that is made here."""
    wheel = tmp_path / "nothing-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("nothing-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: nothing\nVersion: 1.0\n")
        archive.writestr("nothing-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr("nothing-1.0.dist-info/RECORD", "")
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    write = runpy.run_path(str(DOCKER / "lock.py"))["write"]
    for number, (hashes, code) in enumerate([({"nothing": {digest}}, 0), ({"nothing": {"0" * 64}}, 1), ({}, 1)]):
        file = tmp_path / f"{number}.txt"
        write(str(file), {"nothing": "1.0"}, hashes)
        options = ["--no-deps", "--require-hashes", "--no-index", "--find-links", tmp_path, "--target", tmp_path / str(number)]
        command = [sys.executable, "-m", "pip", "install", *options, "-r", file]
        done = subprocess.run(list(map(str, command)), env=environment(), capture_output=True, text=True, check=False)
        assert done.returncode == code, done.stderr
        assert code == 0 or "hash" in done.stderr.lower()


def test_docker_is_sent_what_the_image_is_built_from_and_no_more(tmp_path):
    """Also with what a working copy gathers: an environment, secrets, stores."""
    source, sent = tmp_path / "source", tmp_path / "sent"
    names = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    for name in names.stdout.splitlines():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, source / name)
    for name in (".env", "docker/.env", ".git/config", ".venv/a.py", "labels.zarr/zarr.json", "cli/__pycache__/main.pyc"):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text("secret")
    copy_context(source, sent)
    found = {str(file.relative_to(sent)) for file in sent.rglob("*") if file.is_file()} - {".dockerignore"}
    roots = ["setup.cfg", "pyproject.toml", "README.md", "LICENSE", "labelstore", "pipelines", "cli"]
    files = [
        f"docker/{name}" for name in ("healthcheck.py", "requirements.txt", "requirements-cpu.txt", "requirements-cuda.txt")
    ]
    tracked = set(names.stdout.splitlines())
    assert found == {name for name in tracked if name.partition("/")[0] in roots or name in files}
    copied = " ".join(value for value in instructions("COPY") if "--from" not in value)
    assert all(root in copied.replace("${DEVICE}", "cpu") for root in [*roots, *files[:3]])


@pytest.fixture
def served(tmp_path) -> Iterator[str]:
    (tmp_path / "health").write_text("ok")
    with WebServer(tmp_path) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield server.url
        server.shutdown()
        thread.join()


def healthy(url: str | None) -> subprocess.CompletedProcess[str]:
    variables = environment(**({} if url is None else {"HEALTH_URL": url}), http_proxy="http://127.0.0.1:9")
    variables["PATH"] = f"{sysconfig.get_path('scripts')}:{variables['PATH']}"
    command = [sys.executable, str(DOCKER / "healthcheck.py")]
    return subprocess.run(command, env=variables, capture_output=True, text=True, check=False)


def test_the_health_check_asks_the_address_and_else_the_command(served):
    assert healthy(f"{served}/health").returncode == 0
    assert healthy(None).returncode == 0
    for wrong in (f"{served}/nothing", "http://127.0.0.1:1/health"):
        done = healthy(wrong)
        assert done.returncode == 1
        assert done.stderr.startswith(f"{wrong}: ")
        assert "Traceback" not in done.stderr


# Compose.


@pytest.mark.parametrize("path", [COMPOSE, GPU], ids=lambda path: path.name)
def test_a_compose_file_follows_the_specification(path):
    done = tool("check-jsonschema", "--builtin-schema", "vendor.compose-spec", path)
    assert done.returncode == 0, done.stdout
    assert done.stderr == ""


def test_its_commands_are_commands_with_their_real_options():
    services = load(COMPOSE, SECRETS)["services"]
    run = {name: parse(command_line(service)) for name, service in services.items() if runs(service) in ("labelstore", "dask")}
    assert set(run) == {"scheduler", "worker", "annotate", "viewer"}
    port = run["scheduler"].params["port"]
    address = f"tcp://scheduler:{port}"
    assert run["annotate"].params["scheduler"] == run["worker"].params["scheduler"] == address
    assert run["worker"].params["nthreads"] == 1
    assert run["annotate"].params["store"] == run["viewer"].params["store"] == "s3://labels/labels.zarr"
    assert services["viewer"]["ports"][0].endswith(f":{run['viewer'].params['port']}")
    for name in ("scheduler", "worker"):  # what is asked for its health is where it says so
        assert services[name]["environment"]["HEALTH_URL"].endswith(f"{run[name].params['dashboard_address']}/health")


def test_its_services_wait_for_what_can_come_true():
    services = load(COMPOSE, SECRETS)["services"]
    for name, service in services.items():
        for other, wanted in service.get("depends_on", {}).items():
            ends = wanted["condition"] == "service_completed_successfully"
            assert wanted["condition"] in ("service_healthy", "service_completed_successfully")
            assert ends == (services[other].get("restart") is None), f"{name} waits for {other}"
            assert ends or "healthcheck" in services[other] or services[other]["image"].startswith("labelstore:")


def test_its_secrets_come_from_the_environment_and_must_be_set():
    for name in SECRETS:
        with pytest.raises(SystemExit, match=name):
            load(COMPOSE, {**SECRETS, name: ""})
    filled = load(COMPOSE, SECRETS)["services"]
    ours = {"objects", "bucket", "worker", "annotate", "viewer"}
    assert {name for name, service in filled.items() if "secret" in str(service)} == ours
    assert "secret" not in str(yaml.safe_load(COMPOSE.read_text()))
    lines = (DOCKER / "env.example").read_text().splitlines()
    assert [line for line in lines if not line.startswith("#")] == [*(f"{name}=" for name in SECRETS), "TORCH_INDEX="]
    known = set(re.findall(r"\$\{(\w+)", COMPOSE.read_text()))
    assert {line.lstrip("#").partition("=")[0] for line in lines if "=" in line} <= known


def test_its_ports_are_for_this_machine_and_its_cluster_for_itself():
    """A connection to a port of Dask's runs code: only what is published has a network that leads out."""
    found = load(COMPOSE, SECRETS)
    services = found["services"]
    ports = [port for service in services.values() for port in service.get("ports", ())]
    assert sorted(ports) == ["127.0.0.1:8333:8333", "127.0.0.1:8765:8765", "127.0.0.1:8787:8787"]
    published = {name for name, service in services.items() if "ports" in service}
    assert {name for name, service in services.items() if "published" in service.get("networks", ())} == published
    assert all(service.get("network_mode") == "none" or "cluster" in service["networks"] for service in services.values())
    assert found["networks"]["cluster"] == {"internal": "true"}
    assert load(COMPOSE, {**SECRETS, "NETWORK_INTERNAL": "false"})["networks"]["cluster"] == {"internal": "false"}


def test_every_gpu_has_a_worker_of_its_own():
    base, found = load(COMPOSE, SECRETS)["services"], load(GPU, SECRETS)["services"]
    workers = {name: service for name, service in found.items() if "deploy" in service}
    devices = [workers[name]["deploy"]["resources"]["reservations"]["devices"][0]["device_ids"] for name in workers]
    assert sorted(devices) == [["0"], ["1"]]
    for name, service in found.items():
        extended = service.get("extends", {"file": COMPOSE.name, "service": name})
        assert extended["service"] in base
    assert set(workers) - set(base) <= set(found["annotate"]["depends_on"])


def test_the_sample_photographs_get_into_the_volume(tmp_path):
    start, option, code = command_line(load(COMPOSE, SECRETS)["services"]["samples"])
    done = subprocess.run([sys.executable, option, code.replace("/images", str(tmp_path))], check=False)
    assert (start, done.returncode) == ("python", 0)
    assert (tmp_path / "chelsea.png").exists()


# Kubernetes.


def resources() -> list[dict[str, Any]]:
    files = sorted((DOCKER / "kubernetes").glob("*.yaml"))
    return [resource for file in files for resource in yaml.safe_load_all(file.read_text())]


def cluster() -> dict[str, Any]:
    (found,) = (resource for resource in resources() if resource["kind"] == "DaskCluster")
    return found


def pod_specs() -> dict[str, dict[str, Any]]:
    (job,) = (resource for resource in resources() if resource["kind"] == "Job")
    spec = cluster()["spec"]
    return {"annotate": job["spec"]["template"]["spec"], **{role: spec[role]["spec"] for role in ("scheduler", "worker")}}


def test_kubernetes_knows_every_field():
    made = [
        *(resource for resource in resources() if resource["kind"] != "DaskCluster"),
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a"}, "spec": cluster()["spec"]["scheduler"]["service"]},
        *({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": spec} for spec in pod_specs().values()),
    ]
    for resource in made:
        kubernetes_validate.validate(resource, kubernetes_validate.latest_version(), strict=True)
    made[-1]["spec"]["containers"][0]["comand"] = []
    with pytest.raises(kubernetes_validate.ValidationError, match="comand"):
        kubernetes_validate.validate(made[-1], kubernetes_validate.latest_version(), strict=True)


def test_the_pods_may_do_no_more_than_they_need():
    for name, pod in pod_specs().items():
        assert pod["securityContext"] == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
        assert pod["automountServiceAccountToken"] is False
        empty = {volume["name"] for volume in pod["volumes"] if "emptyDir" in volume}
        for container in [*pod.get("initContainers", ()), *pod["containers"]]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }, name
            mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
            assert {"/tmp", "/home/labelstore"} <= set(mounts)
            assert set(mounts.values()) <= empty


def selects(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    """Whether a label selector of Kubernetes takes a pod."""
    given = selector.get("matchLabels", {}).items() <= labels.items()
    expressions = selector.get("matchExpressions", ())
    assert all(expression["operator"] == "In" for expression in expressions)
    return given and all(labels.get(expression["key"]) in expression["values"] for expression in expressions)


def test_only_the_run_the_workers_and_the_operator_reach_dasks_ports():
    (job,) = (resource for resource in resources() if resource["kind"] == "Job")
    name = cluster()["metadata"]["name"]
    roles = {role: {"dask.org/cluster-name": name, "dask.org/component": role} for role in ("scheduler", "worker")}
    other = {"dask.org/cluster-name": "other", "dask.org/component": "worker"}
    operator = {"app.kubernetes.io/name": "dask-kubernetes-operator"}
    pods = {**roles, "annotate": job["spec"]["template"]["metadata"]["labels"], "other": other, "operator": operator, "any": {}}
    policies = [resource["spec"] for resource in resources() if resource["kind"] == "NetworkPolicy"]
    reached: dict[str, set[tuple[str, object]]] = {}
    for target in ("scheduler", "worker", "annotate"):
        (policy,) = (policy for policy in policies if selects(policy["podSelector"], pods[target]))
        assert policy["policyTypes"] == ["Ingress"]
        reached[target] = {
            (source, port["port"])
            for rule in policy.get("ingress", ())
            for peer in rule["from"]
            for source, labels in pods.items()
            if selects(peer["podSelector"], labels) and ("namespaceSelector" in peer) == (source == "operator")
            for port in rule.get("ports", [{"port": "all"}])
        }
    assert reached == {
        "scheduler": {("worker", 8786), ("annotate", 8786), ("operator", 8786), ("operator", 8787)},
        "worker": {("scheduler", "all"), ("worker", "all")},
        "annotate": set(),
    }


def test_the_operator_knows_the_cluster():
    try:
        package = distribution("dask-kubernetes")
    except PackageNotFoundError:
        pytest.skip("dask-kubernetes is not installed: `make test` does that")
    (path,) = (file for file in package.files or () if str(file).endswith("crds/daskcluster.yaml"))
    definition = yaml.safe_load(path.read_text())["spec"]
    (version,) = definition["versions"]
    found = cluster()
    assert found["apiVersion"] == f"{definition['group']}/{version['name']}"
    schema = version["schema"]["openAPIV3Schema"]
    jsonschema.validate(found, schema)
    del found["spec"]["scheduler"]["service"]
    with pytest.raises(jsonschema.ValidationError, match="service"):
        jsonschema.validate(found, schema)


def test_the_pods_run_commands_with_their_real_options_where_they_find_each_other():
    spec, run = cluster()["spec"], {}
    for name, pod in pod_specs().items():
        (container,) = pod["containers"]
        run[name] = parse([*container.get("command", ["labelstore"]), *container["args"]])
        assert pod["securityContext"]["runAsNonRoot"]
    ports = {port["name"]: port["port"] for port in spec["scheduler"]["service"]["ports"]}
    assert run["annotate"].params["scheduler"] == f"tcp://{cluster()['metadata']['name']}-scheduler:{ports['tcp-comm']}"
    assert run["scheduler"].params["port"] == str(ports["tcp-comm"])
    assert spec["scheduler"]["service"]["selector"]["dask.org/cluster-name"] == cluster()["metadata"]["name"]
    assert run["worker"].params["nthreads"] == 1
    names = {resource["metadata"]["name"] for resource in resources() if resource["kind"] in ("Secret", "ConfigMap")}
    for role in ("worker", "annotate"):
        (container,) = pod_specs()[role]["containers"]
        assert {part["name"] for source in container["envFrom"] for part in source.values()} == names
    assert pod_specs()["worker"]["containers"][0]["image"] == pod_specs()["annotate"]["containers"][0]["image"]
    secrets = [resource["stringData"] for resource in resources() if resource["kind"] == "Secret"]
    assert secrets == [dict.fromkeys(SECRETS, "")]


# SLURM.


def job_script(cwd: Path, *options: str) -> str:
    script = str(ROOT / "examples" / "slurm_annotate.py")
    command = [sys.executable, script, "--jobs", "4", "--interface", "lo", "--print-job", *options, "--", "photos", "--flip"]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, env=environment(), check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_slurm_job_is_a_worker_with_a_gpu(tmp_path):
    options = [
        "--partition",
        "gpu",
        "--cores",
        "8",
        "--memory",
        "64GB",
        "--walltime",
        "02:00:00",
        "--prologue",
        "module load cuda",
    ]
    lines = job_script(tmp_path, *options).splitlines()
    directives = {line.removeprefix("#SBATCH ") for line in lines if line.startswith("#SBATCH")}
    assert directives >= {"-p gpu", "-n 1", "--cpus-per-task=8", "--mem=60G", "-t 02:00:00", "--gres=gpu:1"}
    start = next(line for line in lines if "dask_worker" in line)
    assert lines.index("module load cuda") < lines.index(start)
    python, option, module, *words = shlex.split(start)
    assert (python, option, module) == (sys.executable, "-m", "distributed.cli.dask_worker")
    for file in (Path(word) for word in words if word.endswith(".pem")):  # they have gone with the command
        file.parent.mkdir(exist_ok=True)
        file.touch()
    worker = dask_worker.main.make_context("dask worker", words)
    assert (worker.params["nthreads"], worker.params["memory_limit"]) == (1, "0")
    folders = {Path(worker.params[name]).parent for name in ("tls_ca_file", "tls_cert", "tls_key")}
    assert (worker.params["protocol"], len(folders)) == ("tls://", 1)
    assert folders.pop().parent == tmp_path
    assert "--gres" not in job_script(tmp_path, "--gres", "")


def test_without_slurm_it_says_so(tmp_path):
    command = [sys.executable, str(ROOT / "examples" / "slurm_annotate.py"), "--jobs", "1", "--interface", "lo", "--", "photos"]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, env=environment(PATH=str(tmp_path)), check=False
    )
    assert done.returncode == 1
    assert done.stderr.strip().endswith(
        "sbatch is not here: run this on a node of a SLURM cluster from which jobs are submitted"
    )
