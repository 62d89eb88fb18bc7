"""Tokenised rows and batches: where answers start, how rows are padded, which tokens have a loss."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from lime_edge.errors import DataError
from lime_edge.evaluation.examples import Place, Row
from lime_edge.training.dataset import Collator, Examples, encode, encode_prompt, encoded_prompt
from tests.support.tiny_training import backbone, tokenizer

ROW = Row(({"role": "user", "content": "is it so"},), "yes")


def test_an_example_is_the_template_the_answer_and_the_end() -> None:
    tokens = tokenizer()
    example = encode(tokens, ROW, "brief")
    text = tokens.decode(example.input_ids)
    turns = ("system\nbrief", "user\nis it so", "assistant\nyes")
    assert text == "\n".join(f"<|im_start|>{turn}<|im_end|>" for turn in turns)
    assert tokens.decode(example.input_ids[example.answer_start :]) == "yes<|im_end|>"
    assert tokens.decode(example.input_ids[example.response_start :]).startswith("<|im_start|>assistant\n")
    prompt, start = encode_prompt(tokens, ROW.messages, "brief")
    assert (tuple(prompt), start) == (example.input_ids[: example.answer_start], example.response_start)


def test_long_rows_are_dropped_and_counted() -> None:
    length = len(encode(tokenizer(), ROW).input_ids)
    longer = Row(({"role": "user", "content": "is it so?"},), "yes")
    kept = Examples(tokenizer(), [ROW, longer, ROW], length)
    assert (len(kept), kept.dropped) == (2, 1)
    assert kept.lengths == [length, length, length + 1]
    advice = f"--max-length {length + 1} would keep 95 % of them"
    assert kept.advice() == advice
    for few in ([longer], [*[longer] * 10, ROW]):
        said = f"{len(few) - few.count(ROW)} of {len(few)} rows are longer than {length} tokens, .*; {advice}"
        with pytest.raises(DataError, match=said):
            Examples(tokenizer(), few, length)
    assert len(Examples(tokenizer(), [*[longer] * 9, ROW], length)) == 1


def test_a_row_that_the_template_rejects_is_named_by_its_place() -> None:
    bad = Row(({"role": "narrator", "content": "once"},), "yes", (), Place(Path("rows.jsonl"), 7))
    with pytest.raises(DataError, match=r"rows\.jsonl line 7 cannot be put into the chat template: [^$]*narrator"):
        Examples(tokenizer(), [ROW, bad], 100)
    with pytest.raises(DataError, match=r"rows\.jsonl line 7"):
        encoded_prompt(tokenizer(), bad)


def batch(response_only: bool = False) -> tuple[list[Any], dict[str, Any]]:
    answers = {"a": "yes", "a much longer question": "no", "mid": "one more"}
    rows = [Row(({"role": "user", "content": text},), answer) for text, answer in answers.items()]
    examples = Examples(tokenizer(), rows, 100)
    return examples.examples, Collator(2, response_only)([examples[i] for i in range(3)])


def test_the_loss_falls_on_answers_alone() -> None:
    examples, made = batch()
    longest = made["input_ids"].shape[1]
    labels = torch.full_like(made["input_ids"], -100)
    labels[:, made["logits_to_keep"]] = made["labels"]
    for i, example in enumerate(examples):
        begin = longest - len(example.input_ids)
        assert made["input_ids"][i, begin:].tolist() == list(example.input_ids)
        assert made["attention_mask"][i].tolist() == [0] * begin + [1] * len(example.input_ids)
        assert made["position_ids"][i, begin:].tolist() == list(range(len(example.input_ids)))
        answer = begin + example.answer_start
        assert labels[i, answer:].tolist() == list(example.input_ids[example.answer_start :])
        assert bool((labels[i, :answer] == -100).all())
        assert answer - 1 in made["logits_to_keep"]  # the position that predicts its first token
    assert "skill_active" not in made


def test_the_skill_is_active_on_the_response_alone() -> None:
    examples, made = batch(response_only=True)
    longest = made["input_ids"].shape[1]
    for i, example in enumerate(examples):
        begin = longest - len(example.input_ids) + example.response_start
        assert made["skill_active"][i].tolist() == [False] * begin + [True] * (longest - begin)


def test_the_loss_of_a_batch_is_that_of_its_rows() -> None:
    examples, made = batch()
    model = backbone().eval()
    with torch.no_grad():
        found = model(**made).loss
        losses = []
        for example in examples:
            ids = torch.tensor([example.input_ids])
            scores = model(input_ids=ids).logits[0].log_softmax(-1)
            losses += [-scores[at - 1, ids[0, at]] for at in range(example.answer_start, ids.shape[1])]
    torch.testing.assert_close(found, torch.stack(losses).mean(), rtol=1e-5, atol=1e-5)
