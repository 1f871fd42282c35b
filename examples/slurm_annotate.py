"""Label maps made by the GPUs of a SLURM cluster, a job and a worker for each: docs/clusters.md, "SLURM".

    pip install 'labelstore[slurm]'                                # where the nodes see it: on a shared disk
    python slurm_annotate.py --jobs 16 --partition gpu -- /shared/photos --store /shared/photos.zarr --model timm:resnet50

What stands behind `--` is for `labelstore annotate`. Run it where the nodes reach it, in a folder that they see, and leave it
there until it is done: in this process lives Dask's scheduler. The folder holds the run's certificate meanwhile. The jobs end a
minute after it. Run again, it goes on: what is committed is not made twice.
"""

from __future__ import annotations

import argparse
import contextlib
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from dask_jobqueue import SLURMCluster
from distributed import Client, Security


def main() -> int:
    options, annotate = parse()
    with certificate(Path.cwd()) as security, SLURMCluster(security=security, protocol="tls://", **job(options)) as cluster:
        if options.print_job:
            print(cluster.job_script())
            return 0
        require_accepted(cluster.job_script())
        cluster.adapt(minimum_jobs=options.jobs, maximum_jobs=options.jobs)  # jobs whose time is up are followed by others
        print(f"{options.jobs} jobs: waiting for the first; dashboard: {cluster.dashboard_link}", file=sys.stderr)
        with Client(cluster) as client:
            client.wait_for_workers(1)  # the others join the run when SLURM starts them
        files = [
            "--tls-ca-file",
            security.tls_ca_file,
            "--tls-cert",
            security.tls_client_cert,
            "--tls-key",
            security.tls_client_key,
        ]
        where = ["--scheduler", cluster.scheduler_address, *files]
        return subprocess.run(["labelstore", "annotate", *annotate, *where]).returncode


@contextlib.contextmanager
def certificate(shared: Path) -> Iterator[Security]:
    """Make a certificate for this run, in a folder that jobs see and no other user may read: without it, whatever reaches
    a port of Dask's runs code as you."""
    made = Security.temporary().get_tls_config_for_role("worker")
    with tempfile.TemporaryDirectory(prefix=".labelstore-tls-", dir=shared) as folder:  # of mode 0700
        files = {name: str(Path(folder, f"{name}.pem")) for name in ("ca_file", "cert", "key")}
        for name, file in files.items():
            Path(file).write_text(made[name])
        of_roles = {f"tls_{role}_{name}": files[name] for role in ("client", "scheduler", "worker") for name in ("cert", "key")}
        yield Security(require_encryption=True, tls_ca_file=files["ca_file"], **of_roles)


def require_accepted(script: str) -> None:
    """Ask SLURM whether it would take such a job: once they are submitted, a refusal is one of many lines in Dask's log."""
    try:
        subprocess.run(["sbatch", "--test-only"], input=script, text=True, check=True)
    except FileNotFoundError:
        sys.exit("sbatch is not here: run this on a node of a SLURM cluster from which jobs are submitted")
    except subprocess.CalledProcessError as refusal:
        sys.exit(refusal.returncode)  # sbatch has said why


def job(options: argparse.Namespace) -> dict[str, object]:
    """A job is one worker with one GPU, which makes one task at a time; its cores decode images."""
    return {
        "cores": 1,
        "processes": 1,
        "job_cpu": options.cores,
        "memory": options.memory,
        "queue": options.partition,
        "account": options.account,
        "walltime": options.walltime,
        "interface": options.interface,
        "job_extra_directives": [f"--gres={options.gres}"] if options.gres else [],
        "job_script_prologue": options.prologue,
        "job_name": "labelstore",
        "log_directory": options.logs,
        "worker_extra_args": ["--memory-limit", "0"],  # SLURM has one
    }


def parse() -> tuple[argparse.Namespace, list[str]]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, required=True, help="jobs, each a worker with a GPU")
    parser.add_argument("--partition")
    parser.add_argument("--account")
    parser.add_argument("--walltime", default="04:00:00", help="of a job (%(default)s)")
    parser.add_argument("--cores", type=int, default=8, help="CPU cores a job (%(default)s)")
    parser.add_argument("--memory", default="32GB", help="a job (%(default)s)")
    parser.add_argument("--gres", default="gpu:1", help="what SLURM calls one GPU (%(default)s); '' for workers on the CPU")
    parser.add_argument("--interface", help="the network that nodes reach each other by, such as ib0")
    parser.add_argument(
        "--prologue", action="append", default=[], metavar="LINE", help="of the job, such as 'module load cuda'"
    )
    parser.add_argument("--logs", default="slurm-logs", help="a folder for the jobs' output (%(default)s)")
    parser.add_argument("--print-job", action="store_true", help="print the job's script, and submit nothing")
    parser.add_argument("annotate", nargs="*", metavar="-- ...", help="arguments of labelstore annotate")
    options = parser.parse_args()
    return options, options.annotate


if __name__ == "__main__":
    sys.exit(main())
