"""The examples, as users run them: curl and the Python client."""

from __future__ import annotations

import subprocess
import sys

from tests.server.served import running
from tests.support.paths import ROOT
from tests.support.runtime_models import exported, runtime


def test_curl() -> None:
    with running(runtime(exported(), "router")) as url:
        script = ROOT / "examples" / "serve_client.sh"
        found = subprocess.run([str(script), url], capture_output=True, text=True, check=False)
        assert found.returncode == 0, found.stdout + found.stderr
        assert found.stdout.rstrip().splitlines()[0] == '{"status":"ok"}'
        assert "data: [DONE]" in found.stdout
        missing = subprocess.run([str(script), url, "nope"], capture_output=True, text=True, check=False)
        assert missing.returncode != 0
        assert "model_not_found" in missing.stdout


def test_the_python_client() -> None:
    made = runtime(exported(), "json")
    with running(made) as url:
        # The served base is called tiny here.
        code = (ROOT / "examples" / "serve_client.py").read_text("utf-8").replace('"base"', '"tiny"')
        found = subprocess.run([sys.executable, "-c", code, url], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    assert made.generate("book a table for two at an italian place tonight", "json").text in found.stdout
