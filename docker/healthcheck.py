"""Whether this container does what it is there for: exit code 0 or 1, and a line that says why not.

Dask's schedulers and workers say so at an address, which HEALTH_URL names. A container that runs a command and serves nothing
is well while its command runs; of that one the installation is looked at.
"""

from __future__ import annotations

import os
import subprocess
import sys
import urllib.request

_SECONDS = 5


def main() -> None:
    """Ask, and exit."""
    url = os.environ.get("HEALTH_URL")
    try:
        if url is None:
            subprocess.run(["labelstore", "--version"], check=True, timeout=_SECONDS, stdout=subprocess.DEVNULL)
        else:
            with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=_SECONDS):
                pass  # anything but success raises
    except (OSError, subprocess.SubprocessError) as error:
        sys.exit(f"{url or 'labelstore --version'}: {error}")


if __name__ == "__main__":
    main()
