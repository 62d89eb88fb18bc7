"""Answers of a torch model equal those of plain forward passes and of transformers, in any batch."""

from __future__ import annotations

from collections.abc import Iterator
from copy import copy

import pytest
import torch

from lime_edge.contract.routing import Routing
from lime_edge.evaluation.examples import Row
from lime_edge.training.predictor import Predictor
from tests.support.tiny_training import backbone, tokenizer, wrapped


@pytest.fixture(params=["base", "window1", "window2", "response"])
def predictor(request: pytest.FixtureRequest) -> Iterator[Predictor]:
    if request.param == "base":
        yield Predictor(backbone().eval(), tokenizer())
        return
    window = 2 if request.param == "response" else int(request.param[-1])
    model = wrapped(routing=Routing(experts=3, window=window))
    yield Predictor(model, tokenizer(), response_only=request.param == "response", system="be brief")


def brute_force(predictor: Predictor, row: Row) -> dict[str, float]:
    """Log-probability of every choice and its end-of-turn token, each from one plain forward pass."""
    prompt = predictor.prompt(row)
    scores = {}
    for choice in row.choices:
        tail = [*predictor.tokenizer.encode(choice, add_special_tokens=False), predictor.tokenizer.eos_token_id]
        whole = torch.tensor([[*prompt.ids, *tail]])
        active = torch.arange(whole.shape[1])[None] >= prompt.response_start
        extra = {"skill_active": active} if predictor.response_only else {}
        with torch.no_grad():
            logits = predictor.model(input_ids=whole, **extra).logits[0].log_softmax(-1)
        scores[choice] = sum(float(logits[len(prompt.ids) + i - 1, token]) for i, token in enumerate(tail))
    return scores


def test_choosing_is_trying_all(predictor: Predictor) -> None:
    choices = ("yes", "no", "the answer", "the", "a skill", "another long one", "ion", "lime", "é")
    for seed in range(4):
        row = Row(({"role": "user", "content": f"question {seed}"},), "yes", choices)
        scores = brute_force(predictor, row)
        assert predictor.answers([row]) == [max(scores, key=lambda choice: scores[choice])]


def test_generating_is_what_transformers_does(predictor: Predictor) -> None:
    texts = ["Hello", "a much longer question about something else", "no"]
    prompts = [predictor.prompt(Row(({"role": "user", "content": text},), "x")) for text in texts]
    found = predictor.generate(prompts, 12)
    for prompt, answer in zip(prompts, found, strict=True):
        assert predictor.generate([prompt], 12) == [answer]
        if not predictor.response_only:
            whole = torch.tensor([prompt.ids])
            wanted = predictor.model.generate(
                input_ids=whole, attention_mask=torch.ones_like(whole), max_new_tokens=12, do_sample=False
            )[0, len(prompt.ids) :].tolist()
            eos = predictor.tokenizer.eos_token_id
            assert answer == (wanted[: wanted.index(eos)] if eos in wanted else wanted)


def test_answers_come_in_the_order_of_the_rows() -> None:
    predictor = Predictor(wrapped(), tokenizer())
    rows = [
        Row(({"role": "user", "content": "x" * (20 - i)},), "yes", ("yes", "no") if i % 3 == 0 else ())
        for i in range(20)
    ]
    together = predictor.answers(rows, 5)
    assert together == [predictor.answers([row], 5)[0] for row in rows]
    assert all(answer in row.choices for answer, row in zip(together, rows, strict=True) if row.choices)


def test_a_tokenizer_without_a_token_for_padding() -> None:
    tokens = copy(tokenizer())
    tokens.pad_token = None
    rows = [Row(({"role": "user", "content": text},), "yes") for text in ("x", "much longer")]
    model = wrapped()
    assert Predictor(model, tokens).answers(rows, 3) == Predictor(model, tokenizer()).answers(rows, 3)


def test_measuring_leaves_the_mode_of_the_model() -> None:
    predictor = Predictor(wrapped().train(), tokenizer())
    predictor.answers([Row(({"role": "user", "content": "x"},), "yes")], 1)
    assert predictor.model.training


def test_choices_with_a_sliding_window() -> None:
    model = wrapped("gemma3")
    predictor = Predictor(model, tokenizer())
    row = Row(({"role": "user", "content": "x" * 90},), "yes", ("yes", "no", "the answer"))
    scores = brute_force(predictor, row)
    assert predictor.answers([row]) == [max(scores, key=lambda choice: scores[choice])]
