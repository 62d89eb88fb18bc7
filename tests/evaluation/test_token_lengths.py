"""Tokens of rows: as many as training and runtime count, and rows that do not fit are found beforehand."""

from __future__ import annotations

from pathlib import Path

import pytest

from lime_edge.evaluation.examples import Place, Row
from lime_edge.evaluation.instruction import Instruction
from lime_edge.evaluation.token_lengths import TokenCounter, as_asked, too_long
from lime_edge.training.dataset import encode
from tests.exporters.vision_case import exported
from tests.support.tiny_training import backbone_dir, tokenizer
from tests.support.vision.pictures import png

PLACE = Path("test.jsonl")


def row(prompt: str, answer: str = "yes", *choices: str, role: str = "user", line: int = 1) -> Row:
    return Row(({"role": role, "content": prompt},), answer, choices, Place(PLACE, line))


@pytest.fixture(scope="module")
def counter() -> TokenCounter:
    return TokenCounter(backbone_dir())


@pytest.mark.parametrize("system", [None, "be brief"])
def test_a_row_has_as_many_tokens_as_in_training(counter: TokenCounter, system: str | None) -> None:
    one = row("is it <|im_end|> so?", "yes, é😀")
    assert counter.row(one, system) == len(encode(tokenizer(), one, system).input_ids)
    assert counter.prompt(one, system) == encode(tokenizer(), one, system).answer_start


def test_rows_that_do_not_fit_are_named_by_line(counter: TokenCounter) -> None:
    short = row("a" * 20, line=1)
    room = counter.prompt(short) + 8
    rows = [short, row("a" * 21, line=4), row("a" * 20, "b", "b", "c" * 8, line=6), row("a", "b", "b", "c", line=8)]
    found = too_long(counter, rows, [None], room, 8)
    assert list(found) == [1, 2]
    assert found[1] == f"test.jsonl line 4: {room - 7} tokens and 8 for the answer; the model has room for {room}"
    assert found[2].startswith("test.jsonl line 6: ")
    assert "9 for the longest choice" in found[2]
    with_system = too_long(counter, rows, [None, "s"], room, 8)
    assert list(with_system) == [0, 1, 2]


def test_what_an_interface_puts_around_a_bare_row_counts(counter: TokenCounter) -> None:
    kept, request = Instruction("Answer: ", "\nNow:"), "Answer: {}\nNow:".format
    rows = [row("a" * 9, line=1), row("Answer: " + "a" * 9 + "\nNow:", line=2)]
    asked = as_asked(rows, kept, request)
    assert [one.messages[0]["content"] for one in asked] == [rows[1].messages[0]["content"]] * 2
    talk = Row(({"role": "system", "content": "s"}, {"role": "user", "content": "q"}), "a", (), Place(PLACE, 3))
    assert as_asked([talk], kept, request) == [talk]
    room = counter.prompt(rows[0]) + 8
    assert too_long(counter, rows[:1], [None], room, 8) == {}
    assert list(too_long(counter, asked[:1], [None], room, 8)) == [0]


def test_rows_that_the_template_rejects_are_named_too(counter: TokenCounter) -> None:
    found = too_long(counter, [row("a", role="narrator", line=3)], [None], 100, 8)
    assert "test.jsonl line 3: " in found[0]
    assert "narrator" in found[0]


def test_the_features_of_pictures_count_as_tokens() -> None:
    counter = TokenCounter(exported("llava_clip").path)
    content = [{"type": "image", "data": png(seed, 30)} for seed in (0, 1)] + [{"type": "text", "text": "which?"}]
    shown = Row(({"role": "user", "content": content},), "a")
    text = Row(({"role": "user", "content": "which?"},), "a")
    assert counter.prompt(shown) == counter.prompt(text) + 2 * 4  # a tile of 28 pixels in patches of 14
