"""`lime-edge serve` as a process of its own, and what its memory is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path

from tests.support.paths import ROOT


class Process:
    """A running server.

    Args:
        model: The model directory.
        options: Further options.
        environment: Further variables.
    """

    def __init__(self, model: Path, *options: str | Path, environment: Mapping[str, str] | None = None) -> None:
        command = [sys.executable, "-m", "lime_edge", "serve", str(model), *map(str, options), "--threads", "1"]
        variables = {**os.environ, **(environment or {})}
        self._process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, env=variables)
        assert self._process.stderr is not None
        self.log: list[dict[str, object]] = []
        for line in self._process.stderr:
            self.log.append(json.loads(line))
            if self.log[-1]["event"] == "listening":
                break
        self.url = str(self.log[-1]["url"])
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stderr is not None
        self.log += [json.loads(line) for line in self._process.stderr]

    def private_bytes(self) -> int:
        """Memory that belongs to this process alone."""
        lines = Path(f"/proc/{self._process.pid}/smaps_rollup").read_text("utf-8").splitlines()
        return sum(1024 * int(line.split()[1]) for line in lines if line.startswith("Private_"))

    def end(self, force: bool = False) -> int:
        """Stop the server; with `force`, as if the power failed."""
        if force:
            self._process.kill()
        else:
            self._process.terminate()
        self._reader.join()
        assert self._process.stderr is not None
        self._process.stderr.close()
        return self._process.wait()
