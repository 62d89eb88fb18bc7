"""`lime-edge chat`: the conversation, its commands and its end."""

from __future__ import annotations

from pathlib import Path

from lime_edge.runtime import Runtime
from tests.support.cli_models import lime


def test_chat(model: Path, skill: Path) -> None:
    runtime = Runtime.load(model)
    runtime.load_skill(skill)
    first = runtime.generate("Say 1", max_new_tokens=6).text
    turns = [{"role": "user", "content": "Say 1"}, {"role": "assistant", "content": first}]
    second = runtime.generate([*turns, {"role": "user", "content": "Say 2"}], "odd", max_new_tokens=6).text
    lines = [
        "Say 1",
        "/skill odd",
        "/skill list",
        "Say 2",
        "/skill none",
        "/clear",
        "Say 1",
        "/what",
        "/skill no",
        "/quit",
    ]
    result = lime("chat", model, "--max-new-tokens", "6", stdin="\n".join(lines) + "\n")
    assert result.exit_code == 0
    said = result.stdout.partition("\n")[2]
    assert said.startswith(f"base> {first}\nbase> odd> * odd\nodd> {second}\nodd> base> base> {first}\n")
    assert "/what is not a command" in said
    assert "no skill named 'no'" in said


def test_chat_ends_with_its_input(model: Path) -> None:
    result = lime("chat", model, "--skill", "odd", stdin="")
    assert result.exit_code == 0
    assert result.stdout.endswith("odd> \n")
