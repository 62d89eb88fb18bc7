"""Time of a training step: LiME-X against the ordinary mixture MoE-X, in paired rounds.

    python -m benchmarks.speed.train_speed [--rounds 12] [--json FILE]

All methods have the same backbone, E, r, targets, scaling and batch; a step includes the optimiser. Times are processor
time of all threads together, so that other load on the machine matters little. Rivals are measured as this repository
implements them (all experts in two matrix products), and with their experts one after the other, as public
implementations run them.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.harness.rounds import Report, Variant, measure, versions
from benchmarks.multitask.methods import EXPERTS, METHODS, RANK, SCALING, Facts
from benchmarks.rivals.per_token import HydraLora, MoeLora
from benchmarks.rivals.scaffold import Call, Mixture, Settings, insert
from lime_edge.method.config import ATTENTION
from lime_edge.training import backbone
from lime_edge.training.attention import plain_if_short

#: Mixture -> the LiME method that its time is divided by; the goal is a ratio of at least 1.29.
PAIRS = {"moelora": "lime-lora", "moelora-fa": "lime-lora-fa", "moedora": "lime-dora"}
OTHERS = ("lora", "hydralora", "mola", "mixlora")
_PACKAGES = ("torch", "transformers", "peft")
_PATH = click.Path(dir_okay=False, path_type=Path)


class LoopedMoeLora(MoeLora):
    """MoELoRA that computes one expert after the other."""

    def change(self, x: Tensor) -> Tensor:
        weights = F.pad(self.route(x), (0, self.always), value=1.0).to(x.dtype) * self.settings.scaling
        out = torch.zeros_like(x[..., :1])
        for e in range(weights.shape[-1]):
            adapted = F.linear(F.linear(x, self.a[e].to(x.dtype)), self.b[e].to(x.dtype))
            out = out + weights[..., e, None] * adapted
        return out


class LoopedHydraLora(HydraLora):
    """HydraLoRA that computes one head after the other."""

    def change(self, x: Tensor) -> Tensor:
        weights = torch.softmax(F.linear(x, self.gate.to(x.dtype)).float(), -1).to(x.dtype) * self.settings.scaling
        low = F.linear(x, self.a[0].to(x.dtype))
        out = torch.zeros_like(x[..., :1])
        for e in range(self.settings.experts):
            out = out + weights[..., e, None] * F.linear(low, self.b[e].to(x.dtype))
        return out


@click.command()
@click.option("-m", "--model", default=backbone.DEFAULT, show_default=True, help="The backbone.")
@click.option("--rows", default=8, show_default=True, type=click.IntRange(1))
@click.option("--tokens", default=128, show_default=True, type=click.IntRange(4))
@click.option("--rounds", "count", default=12, show_default=True, type=click.IntRange(1))
@click.option("--threads", default=1, show_default=True, type=click.IntRange(1))
@click.option("--json", "json_path", type=_PATH, help="Also write the results to this JSON file.")
def main(model: str, rows: int, tokens: int, count: int, threads: int, json_path: Path | None) -> None:
    """Measure training steps of LiME and its rivals."""
    torch.set_num_threads(threads)
    where = backbone.resolve(model)
    vocabulary = backbone.load(where, torch.bfloat16)[0].config.vocab_size
    inputs = batch(rows, tokens, vocabulary)
    report = Report("train_speed", {"model": model, "rows": rows, "tokens": tokens, "threads": threads})
    report.notes |= versions(_PACKAGES)
    report.add(measure("a training step, CPU time", variants(where, inputs), count, warm=2, tokens=tokens, rows=rows))
    report.write(json_path)


def batch(rows: int, tokens: int, vocabulary: int) -> dict[str, Any]:
    """Random rows without padding; the loss covers the last twelfth of the tokens, as with short answers."""
    ids = torch.randint(3, vocabulary, (rows, tokens), generator=torch.Generator().manual_seed(0))
    kept = max(2, tokens // 12)
    return {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "position_ids": torch.arange(tokens).expand(rows, -1),
        "labels": ids[:, -kept:],
        "logits_to_keep": torch.arange(tokens - kept, tokens),
    }


def variants(where: Path, inputs: dict[str, Any]) -> list[Variant]:
    """All methods as variants of a group."""
    ours = [name for name in PAIRS.values() if name in METHODS]
    rivals = [name for name, other in PAIRS.items() if other in METHODS]
    made = [Variant(METHODS[name].title, step(*_method(name, where), inputs)) for name in ours]
    base = METHODS["lime-lora"].title
    made += [
        Variant(METHODS[name].title, step(*_method(name, where), inputs), (METHODS[PAIRS[name]].title,))
        for name in rivals
    ]
    looped: dict[str, type[MoeLora] | type[HydraLora]] = {
        "MoELoRA, expert by expert": LoopedMoeLora,
        "HydraLoRA, head by head": LoopedHydraLora,
    }
    made += [Variant(title, step(*_looped(kind, where), inputs), (base,)) for title, kind in looped.items()]
    return made + [Variant(METHODS[name].title, step(*_method(name, where), inputs), (base,)) for name in OTHERS]


def step(net: Any, model: torch.nn.Module, inputs: dict[str, Any]) -> Callable[[], float]:
    """A turn of one whole training step, in processor seconds; `net` is the backbone inside the model."""
    model.train()
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4)

    def turn() -> float:
        began = time.process_time()
        with plain_if_short(net, inputs["input_ids"]):
            model(**inputs).loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return time.process_time() - began

    return turn


def _method(name: str, where: Path) -> tuple[Any, torch.nn.Module]:
    net = backbone.load(where, torch.bfloat16)[0]
    return net, METHODS[name].build(net, Facts(1, [[3]], 0)).model


def _looped(kind: type[MoeLora] | type[HydraLora], where: Path) -> tuple[Any, torch.nn.Module]:
    net, call = backbone.load(where, torch.bfloat16)[0], Call()
    insert(net, ATTENTION, lambda module, _: kind(module, Settings(EXPERTS, RANK, SCALING), call))
    return net, Mixture(net, call, Settings().balance)


if __name__ == "__main__":
    main()
