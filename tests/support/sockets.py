"""Listening sockets of processes, as the kernel lists them in /proc."""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_LISTEN = "0A"
_LINK = "socket:["


@dataclass(frozen=True, order=True)
class Listener:
    """A TCP socket that accepts connections, and the process that holds it."""

    pid: int
    address: str
    port: int

    @property
    def is_loopback(self) -> bool:
        address = ipaddress.ip_address(self.address)
        return (getattr(address, "ipv4_mapped", None) or address).is_loopback


def tree(pid: int) -> list[int]:
    """A process and all its descendants."""
    parents = {number: fields[1] for number, fields in _stats()}
    found = [pid]
    for one in found:
        found += [child for child, parent in parents.items() if parent == str(one)]
    return found


def listeners(pids: list[int]) -> list[Listener]:
    """All listening TCP sockets that these processes hold, of IPv4 and IPv6."""
    listening = {inode: place for name in ("tcp", "tcp6") for inode, place in _table(Path("/proc/net") / name)}
    return sorted({Listener(pid, *listening[inode]) for pid in pids for inode in _sockets(pid) if inode in listening})


def _stats() -> Iterator[tuple[int, list[str]]]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                text = (entry / "stat").read_text()
            except OSError:
                continue  # it has ended meanwhile
            yield int(entry.name), text[text.rindex(")") + 2 :].split()


def _table(path: Path) -> Iterator[tuple[str, tuple[str, int]]]:
    """Listening sockets by inode; tcp6 is missing where the kernel has no IPv6."""
    lines = path.read_text().splitlines()[1:] if path.exists() else []
    for fields in map(str.split, lines):
        if fields[3] == _LISTEN:
            address, port = fields[1].split(":")
            yield fields[9], (_address(address), int(port, 16))


def _address(text: str) -> str:
    """Decode hexadecimal words of 32 bits, each in the machine's byte order."""
    words = [int(text[start : start + 8], 16) for start in range(0, len(text), 8)]
    return str(ipaddress.ip_address(struct.pack(f"={len(words)}I", *words)))


def _sockets(pid: int) -> Iterator[str]:
    try:
        entries = list(Path(f"/proc/{pid}/fd").iterdir())
    except OSError:
        return  # it has ended meanwhile
    for entry in entries:
        try:
            target = str(entry.readlink())
        except OSError:
            continue
        if target.startswith(_LINK):
            yield target[len(_LINK) : -1]
