"""Graphs are verified before they are timed; prompts encode to the tokens that they are made of."""

from __future__ import annotations

from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from tokenizers import Tokenizer
from tokenizers.models import WordLevel

from benchmarks.engines.sides import prompt
from benchmarks.speed.decode import main as decode
from tests.support.runtime_models import exported, scratch, skill


def test_a_skill_that_does_nothing_is_not_measured(tmp_path: Path) -> None:
    model = exported(precision="fp32")
    nothing = skill(model, "nothing", size=0.0)
    words = ["--operators", "none", "-m", str(scratch() / "llama"), "--work", str(tmp_path)]
    done = CliRunner().invoke(decode, [str(model), str(nothing), *words])
    assert done.exit_code == 1
    assert "skill nothing (function) changes no logit" in done.output


def test_a_prompt_encodes_to_its_own_tokens() -> None:
    tokenizer = Tokenizer.from_file(str(exported(precision="fp32") / "tokenizer.json"))
    ids = prompt(tokenizer, 9)
    assert len(ids) == 9
    assert tokenizer.encode(tokenizer.decode(ids), add_special_tokens=False).ids == ids
    assert prompt(tokenizer, 9) == ids != prompt(tokenizer, 9, seed=1)
    with pytest.raises(click.ClickException, match="not byte-level BPE"):
        prompt(Tokenizer(WordLevel({"a": 0}, "a")), 1)
