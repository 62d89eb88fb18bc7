"""What Linux's accounts say of this process, for tests of memory."""

from __future__ import annotations

from pathlib import Path

STATUS = Path("/proc/self/status")


def private() -> int:
    """Bytes in memory that are no file's: pages of libraries and models come and go as the system likes."""
    line = next(line for line in STATUS.read_text("utf-8").splitlines() if line.startswith("RssAnon:"))
    return 1024 * int(line.split()[1])
