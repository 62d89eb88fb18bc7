"""The instruction that all rows of a data set share is found, and cut exactly."""

from __future__ import annotations

import pytest

from lime_edge.evaluation.examples import Row
from lime_edge.evaluation.instruction import Instruction, is_request
from tests.support.vision.pictures import png


def row(prompt: str, role: str = "user") -> Row:
    return Row(({"role": role, "content": prompt},), "answer", ("answer", "other"))


def test_what_stands_around_every_request_is_the_instruction() -> None:
    requests = ["book a table", "play a song", "turn it off"]
    rows = [row(f"Turn it into JSON.\n\nRequest: {request}\nJSON:") for request in requests]
    found = Instruction.of(rows)
    assert found == Instruction("Turn it into JSON.\n\nRequest: ", "\nJSON:")
    assert [found.cut(one) for one in rows] == [row(request) for request in requests]
    assert found.cut(row("something else")) == row("something else")
    assert found.cut(row("Turn it into JSON.\n\nRequest: \nJSON:")).messages[0]["content"] == ""


def test_overlapping_ends_are_not_cut() -> None:
    assert Instruction("Say: ab", "ab!").bare("Say: ab!") == "Say: ab!"


@pytest.mark.parametrize(
    ("prompts", "beginning", "ending"),
    [
        (["Is it one?", "Was it two?"], "", ""),  # punctuation is no instruction
        (["Q: is it one?\nA:", "Q: was it two?\nA:"], "Q: ", "\nA:"),  # and belongs to the request
        (["- one", "- two"], "", ""),
        (["Say: one", "Say: one"], "", ""),  # nothing would be left
        (["Say: one", "Say: "], "", ""),
        (
            ["\u7ffb\u8bd1\u6210\u6cd5\u8bed\uff1a\u4f60\u597d", "\u7ffb\u8bd1\u6210\u6cd5\u8bed\uff1a\u518d\u89c1"],
            "\u7ffb\u8bd1\u6210\u6cd5\u8bed\uff1a",
            "",
        ),
        (["bare", "requests"], "", ""),
    ],
)
def test_what_counts_as_an_instruction(prompts: list[str], beginning: str, ending: str) -> None:
    found = Instruction.of([row(prompt) for prompt in prompts])
    assert found == Instruction(beginning, ending)
    assert bool(found) == bool(beginning or ending)


def test_conversations_have_none() -> None:
    turns = Row((*row("Say: one").messages, {"role": "assistant", "content": "1"}, *row("Say: two").messages), "2")
    systems = Row(({"role": "system", "content": "Be brief."}, *row("Say: three").messages), "3")
    for other in (turns, systems, row("Say: four", "system")):
        assert not is_request(other)
        assert not Instruction.of([row("Say: one"), row("Say: two"), other])
        assert Instruction("Say: ", "").cut(other) is other
    assert not Instruction.of([])


PICTURES = [{"type": "image", "data": png(seed)} for seed in range(3)]


def pictured(question: str, seed: int = 0) -> Row:
    content = [PICTURES[seed], {"type": "text", "text": question}]
    return Row(({"role": "user", "content": content},), "a")


def test_of_rows_with_pictures_the_whole_question_can_be_the_instruction() -> None:
    rows = [pictured("Which flower is it?", seed) for seed in range(3)]
    found = Instruction.of(rows)
    assert (found.beginning, found.ending) == ("", "Which flower is it?")
    assert [found.cut(row).messages[0]["content"] for row in rows] == [[picture] for picture in PICTURES]


def test_of_questions_about_pictures_the_request_keeps_its_own_words() -> None:
    rows = [pictured(f"Look. Is there a {what}? Yes or no.", seed) for seed, what in enumerate(("cat", "dog", "hat"))]
    found = Instruction.of(rows)
    assert (found.beginning, found.ending) == ("", " Yes or no.")
    assert found.cut(rows[1]).messages[0]["content"][1]["text"] == "Look. Is there a dog?"
    other = pictured("something else")
    assert found.cut(other) == other


def test_one_row_with_a_picture_has_no_instruction() -> None:
    assert not Instruction.of([pictured("Which flower is it?")])
