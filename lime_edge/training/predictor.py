"""Answers of a torch model: greedy text, the likeliest of given choices, and the logits of prompts.

Works with any causal transformers model, wrapped or not; LiME layers are also told where the skill is active.
Shapes: B rows, S tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor
from transformers import DynamicCache

from lime_edge.evaluation.examples import Row
from lime_edge.method.features import with_features
from lime_edge.method.forward_state import evidence_of, set_evidence

from .checkpoint import is_lime
from .dataset import chat_of, encode_with_pictures
from .pictures.batch_pictures import batch_pictures

if TYPE_CHECKING:
    from .pictures.picture_features import Pictures

_DELTAS = "position_deltas"  # attribute of a cache, [B]: what later positions differ from their indices
_BATCH = 16  # rows generated together


def pad_id(tokenizer: Any) -> int:
    """The padding token; the end-of-turn token if the tokenizer has none, since padding is masked anyway."""
    return int(tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id)


@dataclass(frozen=True)
class Prompt:
    """A tokenised prompt, and the index at which the assistant's turn begins in it."""

    ids: tuple[int, ...]
    response_start: int
    pictures: Pictures | None = None


def _positions(mask: Tensor) -> Tensor:
    """Positions of text, [B, S], of tokens that are real in a mask."""
    return (mask.cumsum(1) - 1).clamp_min(0)


class Predictor:
    """Asks one model for its likeliest answers.

    Args:
        model: A causal language model, PEFT or plain.
        tokenizer: Its tokenizer.
        response_only: Whether the skill is active in the assistant's turn alone.
        system: System text of the skill.
    """

    def __init__(self, model: Any, tokenizer: Any, response_only: bool = False, system: str | None = None) -> None:
        self.model, self.tokenizer, self.system = model, tokenizer, system
        self.response_only = response_only and is_lime(model)

    def prompt(self, row: Row) -> Prompt:
        """Format and tokenise the conversation of a row."""
        ids, start, pictures = encode_with_pictures(self.tokenizer, row.messages, self.system)
        return Prompt(tuple(ids), start, pictures)

    def answers(self, rows: Sequence[Row], max_new_tokens: int = 96, label: str = "measuring") -> list[str]:
        """One answer per row: the likeliest choice where the row has choices, else greedy text."""
        found: dict[int, str] = {}
        free = [i for i, row in enumerate(rows) if not row.choices]
        free.sort(key=lambda i: len(self.prompt(rows[i]).ids))
        jobs = [[i] for i, row in enumerate(rows) if row.choices]
        jobs += [free[i : i + _BATCH] for i in range(0, len(free), _BATCH)]
        console = Console(stderr=True)
        with self._inference():
            for job in track(jobs, label, transient=True, console=console, disable=not console.is_terminal):
                first = rows[job[0]]
                if first.choices:
                    found[job[0]] = self._choose(self.prompt(first), first.choices)
                else:
                    texts = self.generate([self.prompt(rows[i]) for i in job], max_new_tokens)
                    found |= {
                        i: self.tokenizer.decode(ids, skip_special_tokens=True)
                        for i, ids in zip(job, texts, strict=True)
                    }
        return [found[i] for i in range(len(rows))]

    @torch.no_grad()
    def generate(self, prompts: Sequence[Prompt], max_new_tokens: int) -> list[list[int]]:
        """Greedy token ids after each prompt, without the end-of-turn token."""
        eos = self.tokenizer.eos_token_id
        logits, cache, mask = self.prefill(prompts)
        done = torch.zeros(len(prompts), dtype=torch.bool)
        steps: list[Tensor] = []
        for _ in range(max_new_tokens):
            token = logits.argmax(-1)  # [B]
            done = done | (token == eos)
            if bool(done.all()):
                break
            steps.append(torch.where(done, eos, token))
            mask = torch.cat([mask, mask.new_ones(len(mask), 1)], 1)
            logits = self._step(steps[-1][:, None], mask, cache)[:, -1]
        rows = torch.stack(steps, 1).tolist() if steps else [[] for _ in prompts]
        return [row[: row.index(eos)] if eos in row else row for row in rows]

    @torch.no_grad()
    def prefill(self, prompts: Sequence[Prompt]) -> tuple[Tensor, DynamicCache, Tensor]:
        """Logits [B, V] after each prompt, the key-value cache, and the attention mask [B, S], padded on the left."""
        longest = max(len(prompt.ids) for prompt in prompts)
        ids = torch.full((len(prompts), longest), pad_id(self.tokenizer))
        mask, active = torch.zeros_like(ids), torch.zeros_like(ids, dtype=torch.bool)
        for i, prompt in enumerate(prompts):
            begin = longest - len(prompt.ids)
            ids[i, begin:] = torch.tensor(prompt.ids)
            mask[i, begin:] = 1
            active[i, begin + prompt.response_start :] = True
        cache = DynamicCache()  # without a config, sliding-window layers keep all tokens too, so `_choose` can crop
        extra = batch_pictures([p.pictures for p in prompts], [len(p.ids) for p in prompts], _positions(mask))
        if extra:
            deltas = torch.tensor([p.pictures.delta if p.pictures else 0 for p in prompts])
            setattr(cache, _DELTAS, deltas)
        extra |= {"skill_active": active} if self.response_only else {}
        return self._step(ids, mask, cache, last=True, **extra)[:, -1], cache, mask

    def _step(self, ids: Tensor, mask: Tensor, cache: DynamicCache, last: bool = False, **extra: Any) -> Tensor:
        places = _positions(mask)[:, -ids.shape[1] :]
        if extra.get("position_ids") is not None:
            places = extra.pop("position_ids")
        elif (deltas := getattr(cache, _DELTAS, None)) is not None:
            places = places + deltas[:, None]
        if last:
            extra["logits_to_keep"] = torch.tensor([ids.shape[1] - 1])
        output = self._call(
            input_ids=ids, attention_mask=mask, position_ids=places, cache=cache, use_cache=True, **extra
        )
        return output.logits.float()  # type: ignore[no-any-return]

    def _choose(self, prompt: Prompt, choices: Sequence[str]) -> str:
        """The choice whose tokens and end of turn are jointly likeliest; skips only choices that cannot win."""
        logits, cache, mask = self.prefill([prompt])
        first = logits[0].log_softmax(-1)
        text = chat_of(self.tokenizer).text
        tails = {choice: [*text(choice), self.tokenizer.eos_token_id] for choice in choices}
        evidence = evidence_of(cache)
        best, best_score = choices[0], -torch.inf
        for choice in sorted(choices, key=lambda c: -float(first[tails[c][0]])):
            ids = tails[choice]
            if float(first[ids[0]]) <= best_score:
                break  # its other tokens can only lower the score
            tail = torch.tensor([ids])
            longer = torch.cat([mask, mask.new_ones(1, len(ids) - 1)], 1)
            rest = self._step(tail[:, :-1], longer, cache)[0].log_softmax(-1)
            cache.crop(1 - len(ids))  # negative: the number of tokens to remove
            set_evidence(cache, evidence)
            total = float(first[ids[0]] + rest.gather(1, tail[0, 1:, None]).sum())
            if total > best_score:
                best, best_score = choice, total
        return best

    def _call(self, **given: Any) -> Any:
        """A forward pass; a model that is not wrapped takes no features, so they become embeddings here."""
        if "features" in given and not is_lime(self.model):
            features, places = given.pop("features"), given.pop("feature_ids")
            given = with_features(self.model, given, features, places)
        return self.model(**given)

    @contextmanager
    def _inference(self) -> Iterator[None]:
        """Evaluation mode without gradients; the mode of the model is restored."""
        was_training = self.model.training
        self.model.eval()
        try:
            with torch.no_grad():
                yield
        finally:
            self.model.train(was_training)
