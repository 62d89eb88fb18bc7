"""The protocol of the workers: one line of JSON for each request, with any interpreter."""

from __future__ import annotations

import json
import subprocess
import sys

from tests.support.paths import ROOT

_ENGINE = """
from benchmarks.engines.worker import Engine, serve

class Counter(Engine):
    name = "counter"

    def __init__(self, settings):
        self.top, self.cache = settings["positions"], []

    def variants(self):
        print("chatter of a library")
        return {"plain": "counts"}

    def forget(self, variant):
        self.cache = []

    def prompt(self, variant, ids):
        self.cache += ids

    def step(self, variant, token):
        self.cache.append(token)

    def back(self, variant, length):
        del self.cache[length:]

    def logits(self, variant):
        return [float(i == (self.cache[-1] + 1) % self.top) for i in range(self.top)]

serve(Counter)
"""


def test_a_worker_answers_in_json_and_needs_the_standard_library_alone() -> None:
    requests = [
        {"positions": 10},
        {"do": "prompt", "variant": "plain", "ids": [1, 2]},
        {"do": "steps", "variant": "plain", "token": 7, "count": 2, "uncounted": 1},
        {"do": "greedy", "variant": "plain", "ids": [7, 8], "count": 3},
    ]
    done = subprocess.run(
        [sys.executable, "-S", "-c", _ENGINE],  # -S: no installed packages
        cwd=ROOT,
        input="".join(json.dumps(request) + "\n" for request in requests),
        capture_output=True,
        text=True,
        check=True,
    )
    variants, prompt, steps, greedy = map(json.loads, done.stdout.splitlines())
    assert variants == {"variants": {"plain": "counts"}}
    assert prompt["seconds"] >= 0
    assert steps["seconds"] >= 0
    assert greedy == {"tokens": [9, 0, 1], "logits": [0.0] * 9 + [1.0]}
    assert "chatter of a library" in done.stderr
