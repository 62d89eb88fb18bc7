"""Memory use of this process as Linux reports it."""

from __future__ import annotations

from pathlib import Path

STATUS = Path("/proc/self/status")


def private() -> int:
    """Bytes of anonymous memory: pages of mapped files vary, because the system evicts and reloads them."""
    line = next(line for line in STATUS.read_text("utf-8").splitlines() if line.startswith("RssAnon:"))
    return 1024 * int(line.split()[1])
