"""Opening a model, the public names, and what running needs."""

from __future__ import annotations

import subprocess
import sys

import lime_edge.runtime
from lime_edge.runtime import Runtime
from tests.support.paths import ROOT
from tests.support.runtime_models import exported, skill


def test_public_names() -> None:
    assert lime_edge.runtime.__all__ == [
        "AnswerSpec",
        "Choice",
        "Context",
        "Generation",
        "Module",
        "Operators",
        "Route",
        "Runtime",
        "SchedulerSettings",
        "SchedulerStats",
        "Session",
        "SkillInfo",
        "Stream",
        "Ticket",
        "Timings",
        "TokenLogprob",
    ]


def test_load() -> None:
    made = Runtime.load(str(exported()), device="cpu", threads=1, verify=True)
    assert (made.device, made.context_length, made.contract.precision) == ("cpu", 256, "fp32")
    assert (made.skills(), made.active_skill) == ([], None)


SCRIPT = """
import sys
from lime_edge.runtime import Runtime
made = Runtime.load(sys.argv[1], threads=1)
made.load_skill(sys.argv[2])
made.use_skill("legal")
made.generate("Hello", max_new_tokens=3)
list(made.stream("Hello", max_new_tokens=3))
made.choose("Hello", ["yes", "no"])
heavy = {"torch", "transformers", "peft", "onnx", "onnx_ir", "onnxscript", "optimum"}
print(sorted(heavy & set(sys.modules)))
"""


def test_running_needs_neither_torch_nor_onnx() -> None:
    command = [sys.executable, "-W", "error", "-c", SCRIPT, str(exported()), str(skill(exported(), "legal"))]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert (done.stdout.strip(), done.stderr, done.returncode) == ("[]", "", 0)
