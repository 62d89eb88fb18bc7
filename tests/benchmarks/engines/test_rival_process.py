"""Workers of other engines: how a missing engine is reported, and a LoRA without effect."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click
import pytest

from benchmarks.engines import rival_process
from benchmarks.engines.rival_process import Rival


def test_a_rival_that_does_not_start_names_its_package(tmp_path: Path) -> None:
    """The worker's own module is found; only llama_cpp (or, where that is installed, a setting) is missing."""
    pattern = r"rival 'llama' does not run[\s\S]*('llama_cpp'|KeyError: 'adapter')[\s\S]*pip install llama-cpp-python"
    with pytest.raises(click.ClickException, match=pattern):
        Rival("llama", sys.executable, {"model": "nowhere"}, tmp_path / "log")


class _Still:
    """A rival whose LoRA has no effect."""

    variants = {"no adapter": "", "LoRA": ""}  # noqa: RUF012 -- a test double

    def ask(self, do: str, **_: Any) -> dict[str, Any]:
        return {"tokens": [1], "logits": [0.5, 0.25]}

    titled = staticmethod(lambda variant: f"still, {variant}")


def test_a_lora_that_does_nothing_is_found() -> None:
    still: Any = _Still()
    with pytest.raises(click.ClickException, match="still, LoRA gives the logits of the model without an adapter"):
        rival_process.check(still, [1, 2], 1)
