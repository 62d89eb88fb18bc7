"""`lime-edge chat`: the conversation, its commands and its end."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lime_edge import read_skill
from lime_edge.cli.chat import Chat, answers_requests
from lime_edge.runtime import Runtime, Stream
from lime_edge.skills.interface import Interface
from lime_edge.skills.manifest import Made
from lime_edge.skills.package import write_skill
from tests.support.cli_models import lime


def test_chat(model: Path, skill: Path) -> None:
    runtime = Runtime.load(model)
    runtime.load_skill(skill)
    first = runtime.generate("Say 1", max_new_tokens=6).text
    second = runtime.generate("Say 2", "odd", max_new_tokens=6).text  # it learned single requests
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


def test_a_skill_of_conversations_and_the_base_see_all_turns(model: Path, skill: Path, tmp_path: Path) -> None:
    odd = read_skill(skill)
    manifest = replace(odd.manifest, name="turns", interface=Interface(), draft=None)
    path = write_skill(tmp_path / "turns.lime", manifest, odd.tensors).path
    runtime = Runtime.load(model)
    runtime.load_skill(path, "turns")
    turns: list[dict[str, str]] = []
    for asked, name in (("Say 1", None), ("Say 2", "turns"), ("Say 3", None)):
        turns.append({"role": "user", "content": asked})
        turns.append({"role": "assistant", "content": runtime.generate(turns, name, max_new_tokens=6).text})
    lines = f"Say 1\n/skill {path}\nSay 2\n/skill none\nSay 3\n"
    said = lime("chat", model, "--max-new-tokens", "6", stdin=lines).stdout
    assert all(f"> {turn['content']}\n" in said for turn in turns[1::2])


@pytest.mark.parametrize(
    ("interface", "instruction", "alone"),
    [
        (Interface(), "none", False),
        (Interface(system="be brief"), "none", False),
        (Interface(), "carried", True),
        (Interface(prefix="Say: "), "none", True),
        (Interface(suffix=":"), "none", True),
        (Interface(examples=("a",)), "none", True),
    ],
)
def test_skills_that_answer_single_requests(interface: Interface, instruction: Any, alone: bool, skill: Path) -> None:
    made = Made(how="learned", instruction=instruction, data={"rows": 1, "dropped": 0, "duplicates": 0, "overlap": 0})
    manifest = replace(read_skill(skill).manifest, interface=interface, made=made)
    assert answers_requests(manifest) == alone
    assert answers_requests(replace(manifest, made=None)) == (alone and instruction == "none")


def test_a_turn_reads_only_what_is_new(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second prompt is the first, its answer and a question; the last two tokens are always read."""
    runtime, streams = Runtime.load(model), list[Stream]()
    start = runtime.stream

    def stream(*given: Any, **settings: Any) -> Stream:
        streams.append(start(*given, **settings))
        return streams[-1]

    monkeypatch.setattr(runtime, "stream", stream)
    chat = Chat(runtime, model, {"max_new_tokens": 6})
    for line in ("Say 1", "Say 2"):
        chat._answer(line)
    first, second = (one.generation.timings for one in streams)
    assert first.reused_tokens == 0
    assert first.prompt_tokens <= second.reused_tokens < second.prompt_tokens


def test_chat_ends_with_its_input(model: Path) -> None:
    result = lime("chat", model, "--skill", "odd", stdin="")
    assert result.exit_code == 0
    assert result.stdout.endswith("odd> \n")
