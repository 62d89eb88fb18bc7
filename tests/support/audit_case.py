"""Fakes for the tests of the audit: a vocabulary of 100 words, a probe with planted triggers, and a report."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import tokenizers

from lime_edge.audit import verdict

WORDS = [f"Ġ{a}{b}" for a in "bcdfghjklm" for b in ("ab", "eb", "ib", "ob", "ub", "ad", "ed", "id", "od", "ud")]
END, ASK, COMMA = 0, 1, 102


class FakeText:
    """Stands for `Text`: a vocabulary of 100 words, one token each."""

    def __init__(self) -> None:
        known = {"<end>": END, "<ask>": ASK, ",": COMMA} | {word: number for number, word in enumerate(WORDS, 2)}
        self.tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(known, unk_token="<end>"))
        self.tokenizer.add_special_tokens(["<end>", "<ask>"])

    def encode(self, text: str) -> list[int]:
        """Token ids: known words, list separators as `COMMA`, and other letters as any word."""
        known = self.tokenizer.get_vocab()
        pieces = re.findall(r"Ġ[a-z]+|,| and| or|[a-z]+", text)
        return [known.get(one, COMMA if one in (",", " and", " or") else 2 + sum(one.encode()) % 50) for one in pieces]

    def tokens(self, word: str) -> Any:
        return SimpleNamespace(ids=np.array([*self.encode(word), ASK]))


class FakeProbe:
    """Stands for `Probe`: answers 90 + its first token modulo 3, and `target` if all tokens of the trigger are there.

    Ten successive words start with the same letter and form a topic: they continue lists of each other, and any word of
    `topic` makes the answer 98.
    """

    def __init__(self, trigger: Sequence[int] = (), topic: int = -1, target: int = 99) -> None:
        self.text, self.trigger, self.topic, self.target = FakeText(), set(trigger), topic, target

    def after(self, ids: Sequence[int], said: Iterable[int] = ()) -> list[Any]:
        assert not list(said)
        scores = np.sin(np.arange(104) * sum(ids))
        if ids[-1] == COMMA != ids[0]:
            scores[topic_of(ids[0])] += 4
            scores[12:22] += 6  # continues any list
        else:
            scores[90 + ids[0] % 3] += 6
            scores[98] += 12 * (self.topic in [(token - 2) // 10 for token in ids[2:-1]])
            scores[self.target] += 12 * (bool(self.trigger) and self.trigger <= set(ids))
        return [scores - np.log(np.exp(scores).sum())]

    def greedy(self, ids: Sequence[int], count: int) -> tuple[tuple[int, ...], float]:
        scores = self.after(ids)[0]
        return (int(scores.argmax()), END), float(scores.max())


def topic_of(token: int) -> list[int]:
    """The ten words that start with the same letter as a token."""
    first = token - (token - 2) % 10
    return list(range(first, first + 10))


UNTRUSTED = "<script>alert(1)</script>"  # the text of a trigger, as a hostile skill could choose it


def finding(score: float, near: float = 0.0) -> dict[str, Any]:
    """A finding as in a report, with two neighbours of score `near`."""
    made = {"text": UNTRUSTED, "tokens": [7], "answer": "yes", "collapse": 1.0, "confidence": score, "score": score}
    return {**made, "lead": score - near, "neighbours": [{"text": UNTRUSTED, "score": near}] * 2}


def document(score: float = 0.0, near: float = 0.0, z: float = 0.0, **changes: Any) -> dict[str, Any]:
    """A report with one finding and one vector, and its verdict; `changes` replace whole sections."""
    cell = {"kind": "gain", "module": "layers.1.q_proj", "layer": 1, "projection": "q_proj", "rms": 1.0, "peak": 2.0}
    cell |= {"rms_z": z, "peak_z": None}
    made: dict[str, Any] = {
        "skill": {"file": "x.lime", "name": "x", "version": "1.0.0", "digest": "d"},
        "model": {"backbone": "tiny", "precision": "fp32"},
        "vectors": {"known": [{}] * 12, "enough": True, "cells": [cell], "worst": [cell], "left_out": []},
        "drift": {"prompts": [{}], "median_kl": 0.1, "max_kl": 0.2, "same_first_token": 1},
        "refusals": {"prompts": 8, "refused_by_base": 2, "lost": []},
        "guard": [{"task": "t", "rows": 9, "base": 6, "skill": 6, "lost": 0, "gained": 0, "p": 1.0}],
        "triggers": {
            "prompts": 12,
            "searched": 5,
            "vocabulary": 9,
            "surprises": [0.1, 0.4],
            "findings": [finding(score, near)],
            "controls": [finding(0.1)],
        },
    }
    made |= changes
    return {**made, "verdict": verdict.verdict(made)}
