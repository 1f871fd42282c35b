"""Dask clusters: one on this machine, a process a GPU or a few on the CPU's cores; or one that the user has started."""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import ssl
import sys
import warnings
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any

import dask
import torch
from distributed import Client, Security
from distributed.comm.addressing import get_address_host_port
from distributed.utils import LoopRunner, silence_logging_cmgr

from labelstore.errors import OptionError, RunError
from labelstore.pipelines.dashboard import is_loopback_name
from labelstore.pipelines.local_nodes import LocalCluster, scheduler_spec, worker_spec
from labelstore.pipelines.resources import ClusterAddress, Resources, worker_environment

# Silent workers are ended in `labelstore.pipelines.watchdog`, by a time that the user chooses. One that has died is looked for
# 15 s later by its name: if its successor has died as well and the next is just being started, that one is ended for good.
_NO_OTHER_TIMEOUT = {"distributed.scheduler.worker-ttl": None, "distributed.deploy.lost-worker-timeout": 10**9}
# Whatever else wakes a thread on the cores of a forward pass makes all of its threads wait for that one.
_SELDOM = {
    "distributed.worker.profile.enabled": False,
    "distributed.admin.tick.interval": "1s",
    "distributed.admin.system-monitor.interval": "2s",
}
# Dask keeps the last thousand messages of every connection, to be looked at: with them, the images' places of as many tasks.
_FEW_MESSAGES = {"distributed.admin.low-level-log-length": 10}
_TRIES = 3
"""Times that a task may be made because its worker died."""
_START_SECONDS, _CONNECT_SECONDS = 120, 10
_DASHBOARD_PORT = 8787


@contextmanager
def local_cluster(resources: Resources) -> Iterator[Client]:
    """Start worker processes and yield a client; everything is gone afterwards.

    A connection to a Dask process may run code there. All listen on the loopback interface only, and take a connection only
    with the certificate of this cluster, which no other user of the machine has.

    Raises
    ------
    RunError
        The workers do not come up.
    """
    environment = worker_environment(resources)
    security = Security.temporary()
    scheduler = scheduler_spec(security, _dashboard_address(), allowed_failures=_TRIES - 1)
    numbers = range(resources.workers)
    workers = {number: worker_spec(security, **_worker_options(number, resources)) for number in numbers}
    with (
        warnings.catch_warnings(),
        _no_variables_left(),
        dask.config.set({"distributed.nanny.pre-spawn-environ": environment, **_SELDOM, **_NO_OTHER_TIMEOUT, **_FEW_MESSAGES}),
        _loop_deaf_to_interrupts() as loop,
    ):
        warnings.filterwarnings("ignore", message="Port .* is already in use")  # another is taken, and its address shown
        with (
            _started(
                scheduler=scheduler, workers=workers, loop=loop, security=security, silence_logs=logging.CRITICAL
            ) as cluster,
            Client(cluster, set_as_default=False) as client,
        ):
            try:
                client.wait_for_workers(resources.workers, timeout=_START_SECONDS)
            except TimeoutError as error:
                raise RunError(f"{resources.workers} worker processes did not start in {_START_SECONDS} s") from error
            yield client


@contextmanager
def remote_cluster(cluster: ClusterAddress) -> Iterator[Client]:
    """Connect to the scheduler of a cluster that somebody else started, and yield a client; the cluster is left as it is.

    Raises
    ------
    OptionError
        It is no address, or its TLS files cannot be used.
    RunError
        Nobody answers, or not as whom the certificates say; or there are no workers.
    """
    address = cluster.scheduler
    try:
        get_address_host_port(address)
    except ValueError as error:
        raise OptionError(f"--scheduler {address}: expected an address such as tcp://10.0.0.1:8786 ({error})") from error
    security = _security(cluster)
    with silence_logging_cmgr(logging.CRITICAL), dask.config.set(_FEW_MESSAGES):
        try:
            client = Client(address, timeout=_CONNECT_SECONDS, set_as_default=False, security=security)
        except (OSError, RuntimeError) as error:
            raise RunError(f"--scheduler {address}: {_why_not_connected(error)}") from error
        with client:
            if not worker_addresses(client):
                raise RunError(f"--scheduler {address}: there are no workers; start some with `dask worker {address}`")
            yield client


def is_open_to_others(address: str) -> bool:
    """Whether a scheduler takes commands from whatever reaches it over a network: it speaks no TLS, and is not on loopback."""
    if address.startswith(("tls://", "wss://")):
        return False
    host, _ = get_address_host_port(address)
    try:
        addresses = {found[4][0] for found in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)}
    except OSError:
        return True
    return not all(is_loopback_name(str(address)) for address in addresses)


def worker_addresses(client: Client) -> Collection[str]:
    """Return the addresses of a cluster's workers, asked of the scheduler now.

    The client's own ``scheduler_info`` may give what a clock of its has asked for meanwhile, which is without workers.
    """
    scheduler: Any = client.scheduler
    found: Any = client.sync(scheduler.identity, n_workers=-1)
    addresses: Collection[str] = found["workers"]
    return addresses


def read_scheduler_file(file: str) -> str:
    """Return the address in a file that ``dask scheduler --scheduler-file`` has written.

    Raises
    ------
    OptionError
    """
    try:
        address = json.loads(Path(file).read_text())["address"]
    except OSError as error:
        raise OptionError(
            f"--scheduler-file {file}: cannot be read: {error.strerror}; `dask scheduler --scheduler-file {file}` writes it"
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise OptionError(f"--scheduler-file {file}: expected JSON with an 'address', as a Dask scheduler writes it") from error
    return str(address)


def _security(cluster: ClusterAddress) -> Security | None:
    """What speaks TLS, with the files that were named, else with those of Dask's configuration."""
    if not cluster.scheduler.startswith("tls://"):
        if cluster.ca_file or cluster.certificate or cluster.key:
            raise OptionError(f"--scheduler {cluster.scheduler}: --tls-... goes with an address that begins with tls://")
        return None
    given = {"tls_ca_file": cluster.ca_file, "tls_client_cert": cluster.certificate, "tls_client_key": cluster.key}
    try:
        security = Security(require_encryption=True, **{name: file for name, file in given.items() if file is not None})
        security.get_connection_args("client")
    except (OSError, ValueError) as error:
        names = ", ".join(file for file in given.values() if file is not None)
        raise OptionError(f"--tls-...: {names or 'Dask configuration'}: cannot be used: {error}") from error
    if security.get_connection_args("client")["ssl_context"] is None:
        raise OptionError(f"--scheduler {cluster.scheduler}: TLS needs --tls-ca-file, --tls-cert and --tls-key")
    return security


def _why_not_connected(error: Exception) -> str:
    """Say it with the reason of the last try: Dask tries until time is up."""
    reason: BaseException = error
    while reason.__cause__ is not None:
        reason = reason.__cause__
    if isinstance(reason, ssl.SSLError) or "SSL" in str(reason) or "certificate" in str(reason):
        return f"the scheduler and this command do not trust each other's certificates: {reason}"
    return (
        f"no Dask scheduler answers there within {_CONNECT_SECONDS} s; start one with `dask scheduler`, which prints its "
        "address"
    )


def _started(**options: Any) -> LocalCluster:
    try:
        return LocalCluster(**options)
    except RuntimeError as error:
        cause = error.__cause__ or error
        raise RunError(
            f"the worker processes could not be started: {cause}; out of memory, perhaps: try fewer --workers"
        ) from error


def _dashboard_address() -> str:
    """Dask's usual port, or any if that is taken: Dask would find out itself, and leave a socket open over it."""
    with socket.socket() as usual:
        try:
            usual.bind(("127.0.0.1", _DASHBOARD_PORT))
        except OSError:
            return "127.0.0.1:0"
    return f"127.0.0.1:{_DASHBOARD_PORT}"


@contextmanager
def _no_variables_left() -> Iterator[None]:
    """Take new environment variables back: Dask leaves its workers' in this process, where the next ones would find them."""
    before = set(os.environ)
    try:
        yield
    finally:
        for name in set(os.environ) - before:
            del os.environ[name]


@contextmanager
def _loop_deaf_to_interrupts() -> Iterator[Any]:
    """An event loop whose thread blocks SIGINT. Workers inherit that: Ctrl-C reaches this process, which ends them, and is
    not answered by a traceback from each of them."""
    with _warnings_of_children_off("ignore::UserWarning:multiprocessing.resource_tracker"):
        # Starting it later would unblock the signal. It warns of what a process that ends at once leaves it to clean up.
        resource_tracker.ensure_running()
    runner = LoopRunner()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        runner.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    try:
        yield runner.loop
    finally:
        runner.stop()


@contextmanager
def _warnings_of_children_off(option: str) -> Iterator[None]:
    """Start Python processes with an option ``-W`` more."""
    sys.warnoptions.append(option)
    try:
        yield
    finally:
        sys.warnoptions.remove(option)


def _worker_options(number: int, resources: Resources) -> dict[str, Any]:
    env = {}
    if resources.device == "cuda":
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        devices = visible.split(",") if visible else [str(device) for device in range(torch.cuda.device_count())]
        env["CUDA_VISIBLE_DEVICES"] = devices[number % len(devices)]
    return {"nthreads": 1, "env": env, "silence_logs": logging.CRITICAL, "memory_limit": 0}
