"""Into the cluster on this machine nobody gets from outside: its sockets, its certificate, its dashboard's door."""

from __future__ import annotations

import asyncio
import http.client
import importlib
import json
import os
import pickle
import re
import socket
import ssl
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

import dask
import pytest
from commands import command_line, environment
from dask_cluster import wait_until
from distributed import Client, Security
from distributed.comm import connect
from distributed.dashboard.scheduler import applications
from sockets import listeners, tree
from unruly_annotators import SECONDS as SECONDS_A_BATCH

from labelstore.pipelines.cluster import is_open_to_others, local_cluster
from labelstore.pipelines.dashboard import OPEN_PATHS, is_loopback_name
from labelstore.pipelines.resources import Resources

pytestmark = pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="the kernel lists no sockets in /proc")
SECONDS = 5


@dataclass(frozen=True)
class Running:
    """A cluster, and where its processes listen."""

    client: Client
    scheduler: str
    nannies: tuple[str, ...]
    workers: dict[int, str]
    earlier: frozenset[object]

    @property
    def comms(self) -> list[str]:
        return [self.scheduler, *self.nannies, *self.workers.values()]

    @property
    def dashboard(self) -> str:
        return str(self.client.dashboard_link)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Running]:
    earlier = frozenset(listeners(tree(os.getpid())))
    with local_cluster(Resources(2, "cpu", 1, 1, 1)) as client:
        found = client.scheduler_info(n_workers=-1)["workers"]
        workers = {pid: address for address, pid in client.run(os.getpid).items()}
        nannies = tuple(one["nanny"] for one in found.values())
        yield Running(client, client.scheduler.address, nannies, workers, earlier)


def port(address: str) -> int:
    number = urlsplit(address).port
    assert number is not None
    return number


# The sockets.


def test_all_that_listens_is_known_and_on_the_loopback_interface(cluster):
    found = set(listeners(tree(os.getpid()))) - cluster.earlier
    assert {socket.address for socket in found} == {"127.0.0.1"}
    here = {cluster.scheduler, *cluster.nannies, cluster.dashboard}
    expected = {(os.getpid(), port(address)) for address in here}
    expected |= {(pid, port(address)) for pid, address in cluster.workers.items()}
    assert {(socket.pid, socket.port) for socket in found} == expected
    assert len(expected) == 1 + 2 + 1 + 2


@pytest.mark.parametrize(
    ("family", "address", "loopback"),
    [
        (socket.AF_INET, "127.0.0.1", True),
        (socket.AF_INET, "0.0.0.0", False),
        (socket.AF_INET6, "::1", True),
        (socket.AF_INET6, "::", False),
        (socket.AF_INET6, "::ffff:127.0.0.1", True),
    ],
)
def test_the_list_of_sockets_has_those_of_every_family(family, address, loopback):
    """What the other test rests on."""
    try:
        with socket.create_server((address, 0), family=family, dualstack_ipv6=family == socket.AF_INET6) as server:
            found = [one for one in listeners([os.getpid()]) if one.port == server.getsockname()[1]]
    except OSError:
        pytest.skip(f"no {address} on this machine")
    assert [(one.address, one.is_loopback) for one in found] == [(str(ip_address(address)), loopback)]


def test_a_run_listens_on_the_loopback_interface_only(pictures, tmp_path):
    """All of a command: its process has scheduler, nannies, dashboard and metrics, each worker process one socket."""
    metrics, log = free_port(), tmp_path / "err"
    options = ("--workers", 2, "--metrics-port", metrics, "--log-format", "json", "--batch-size", 4)
    store = ("--store", tmp_path / "labels.zarr", "--model", "unruly_annotators:slow", "--top-k", 3)
    command = command_line("annotate", pictures, *store, *options)
    with log.open("w") as err:
        process = subprocess.Popen(command, env=environment(**{SECONDS_A_BATCH: "1"}), stderr=err, stdout=subprocess.DEVNULL)
    with process:
        try:
            wait_until(lambda: "loading" in log.read_text() or process.poll() is not None, "the workers are at work")
            found = listeners(tree(process.pid))
            lines = log.read_text().splitlines()
        finally:
            process.terminate()
    assert {one.address for one in found} == {"127.0.0.1"}, lines
    (url,) = (line["url"] for line in map(json.loads, lines[:-1]) if line["event"] == "dashboard")
    dashboard = port(url)
    own = {one.port for one in found if one.pid == process.pid}
    assert {metrics, dashboard} < own
    assert (len(own), [one.pid for one in found].count(process.pid), len(found)) == (5, 5, 7)
    assert len({one.pid for one in found}) == 3


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


# The certificate.


async def run_code(address: str, mark: Path, ssl_context: ssl.SSLContext | None) -> object:
    """Ask a Dask process to run a function, without a client: one message is all that it takes."""
    comm = await connect(address, timeout=SECONDS, ssl_context=ssl_context)
    try:
        code = {"function": pickle.dumps(Path.touch), "args": pickle.dumps((mark,)), "kwargs": pickle.dumps({})}
        await comm.write({"op": "run", **code, "wait": True, "reply": True})
        return await asyncio.wait_for(comm.read(), SECONDS)
    finally:
        comm.abort()


def without_a_certificate() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def with_one_of_its_own() -> ssl.SSLContext:
    """Of the same name as the cluster's, and it trusts any server."""
    context: ssl.SSLContext = Security.temporary().get_connection_args("client")["ssl_context"]
    context.verify_mode = ssl.CERT_NONE
    return context


@pytest.mark.parametrize("context", [without_a_certificate, with_one_of_its_own])
def test_no_process_runs_code_of_a_stranger_on_this_machine(cluster, tmp_path, context):
    for address in cluster.comms:
        with pytest.raises(OSError):
            asyncio.run(run_code(address, tmp_path / "mark", context()))
        with pytest.raises(OSError):
            asyncio.run(run_code(address.replace("tls://", "tcp://"), tmp_path / "mark", None))
    assert not (tmp_path / "mark").exists()


@pytest.mark.parametrize("security", [None, "other"])
def test_a_client_without_the_certificate_is_refused(cluster, security):
    address = cluster.scheduler if security else cluster.scheduler.replace("tls://", "tcp://")
    with pytest.raises(OSError):
        Client(address, timeout=1, security=Security.temporary() if security else None, set_as_default=False)


def test_with_the_certificate_they_run_it(cluster, tmp_path):
    """The same message: what is refused above is the stranger, not the message."""
    context = cluster.client.security.get_connection_args("client")["ssl_context"]
    for number, address in enumerate(address for address in cluster.comms if address != cluster.scheduler):
        asyncio.run(run_code(address, tmp_path / str(number), context))
        assert (tmp_path / str(number)).exists()
    with Client(cluster.scheduler, security=cluster.client.security, timeout=SECONDS, set_as_default=False) as client:
        assert set(client.run(os.getpid).values()) == set(cluster.workers)


def test_the_key_is_in_no_command_line_and_no_environment(cluster):
    for pid in tree(os.getpid()):
        for name in ("cmdline", "environ"):
            assert b"PRIVATE KEY" not in Path(f"/proc/{pid}/{name}").read_bytes()


@pytest.mark.parametrize(
    ("address", "is_open"),
    [
        ("tcp://10.0.0.1:8786", True),
        ("tcp://0.0.0.0:8786", True),
        ("tcp://[fd00::1]:8786", True),
        ("tcp://name.invalid:8786", True),
        ("ws://10.0.0.1:8786", True),
        ("tls://10.0.0.1:8786", False),
        ("wss://10.0.0.1:8786", False),
        ("tcp://127.0.0.1:8786", False),
        ("tcp://localhost:8786", False),
        ("tcp://[::1]:8786", False),
    ],
)
def test_a_cluster_that_is_open_to_others_is_known_by_its_address(address, is_open):
    assert is_open_to_others(address) == is_open


# The dashboard.


def ask(cluster: Running, path: str, method: str = "GET", **headers: str) -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection("127.0.0.1", port(cluster.dashboard), timeout=30)
    try:
        connection.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
        response = connection.getresponse()
        if response.status != http.client.SWITCHING_PROTOCOLS:
            response.read()
        return response
    finally:
        connection.close()


def served_paths() -> set[str]:
    """All paths that Dask serves, with something for their variable parts."""
    modules = map(importlib.import_module, dask.config.get("distributed.scheduler.http.routes"))
    routes = [route[0] for module in modules for route in module.routes]
    return {re.sub(r"\([^)]*\)", "1", f"/{path.lstrip('/')}") for path in [*routes, *applications]}


@pytest.fixture(scope="module")
def cookie(cluster: Running) -> str:
    """What a browser has after it has opened the link that is printed."""
    link = urlsplit(cluster.dashboard)
    response = ask(cluster, f"{link.path}?{link.query}")
    assert (response.status, response.getheader("Location")) == (302, "./status")
    return (response.getheader("Set-Cookie") or "").partition(";")[0]


def test_the_printed_link_opens_the_dashboard_and_leaves_no_token_in_the_address(cluster, cookie):
    assert ask(cluster, "/status").status == 403
    for path in ("/status", "/json/counts.json", "/info/main/workers.html", "/metrics"):
        assert ask(cluster, path, Cookie=cookie).status == 200, path
    name, _, value = cookie.partition("=")
    for wrong in ("", "a", value[:-1], value + "a", "é"):
        assert ask(cluster, f"/status?token={wrong.encode().hex() if wrong == 'é' else wrong}").status == 403
        assert ask(cluster, "/status", Cookie=f"{name}={wrong}").status == 403


def test_without_the_token_nothing_is_served_but_counts(cluster):
    """Of all paths that Dask has: what is served is what is named, and not what is thought of."""
    more = {"/", "/sitemap.json", "/status/ws", "/status/autoload.js", "//status", "/%73tatus", "/nothing"}
    paths = served_paths() | more
    assert {"/status", "/json/counts.json", "/proxy/1/1/1", *OPEN_PATHS} < paths
    statuses = {path: ask(cluster, path).status for path in paths}
    assert {path for path, status in statuses.items() if status != 403} == set(OPEN_PATHS)
    assert {ask(cluster, path, "POST").status for path in paths - OPEN_PATHS} == {403}


def test_counts_are_served_to_a_name_of_this_machine_only(cluster):
    for path in OPEN_PATHS:
        for host in ("127.0.0.1", "localhost", "[::1]"):
            for given in (host, f"{host}:{port(cluster.dashboard)}"):
                assert ask(cluster, path, Host=given).status == 200, given
        for host in ("evil.example", "127.0.0.1.evil.example", "localhost.evil.example:8787", "10.0.0.1", "0.0.0.0", ""):
            assert ask(cluster, path, Host=host).status != 200, host


def test_a_page_of_another_origin_gets_nothing_with_the_browsers_cookie(cluster, cookie):
    host = f"127.0.0.1:{port(cluster.dashboard)}"
    upgrade = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec_WebSocket_Version": "13", "Host": host}
    upgrade["Sec_WebSocket_Key"], upgrade["Sec_WebSocket_Protocol"] = "MDEyMzQ1Njc4OWFiY2RlZg==", "bokeh, token"
    own, others = f"http://{host}", ("http://evil.example", "http://127.0.0.1:1", "null")
    for origin in others:
        assert ask(cluster, "/json/counts.json", Cookie=cookie, Host=host, Origin=origin).status == 403
        assert ask(cluster, "/status/ws", Cookie=cookie, Origin=origin, **upgrade).status == 403
    assert ask(cluster, "/json/counts.json", Cookie=cookie, Host=host, Origin=own).status == 200
    assert ask(cluster, "/status/ws", Origin=own, **upgrade).status == 403
    assert ask(cluster, "/status/ws", Cookie=cookie, Origin=own, **upgrade).status not in (200, 403)


@pytest.mark.parametrize(
    ("name", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.1.2.3", True),
        ("::1", True),
        ("[::1]", True),
        ("::ffff:127.0.0.1", True),
        ("LOCALHOST", True),
        ("0.0.0.0", False),
        ("10.0.0.1", False),
        ("scheduler", False),
        ("127.0.0.1.nip.io", False),
        ("", False),
    ],
)
def test_names_of_the_loopback_interface(name, loopback):
    assert is_loopback_name(name) == loopback
