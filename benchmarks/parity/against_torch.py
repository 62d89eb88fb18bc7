"""Compares an fp32 export with torch on the real backbone: logits and greedy text.

    python -m benchmarks.parity.against_torch CHECKPOINT EXPORTED --skills FOLDER --data FOLDER

For the base and for every skill: the largest difference of any logit over 50 prompts (10 of each data set), and greedy
continuations of 64 tokens, whose first difference must be a tie of less than 1e-4.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt
import torch
from rich.progress import track

from lime_edge import Runtime, read_skill
from lime_edge.evaluation.examples import read_rows
from lime_edge.skills.package import Skill
from lime_edge.training import checkpoint
from lime_edge.training.learn_skill import Recipe, prepare
from lime_edge.training.predictor import Predictor, Prompt

_TIE = 1e-4


@dataclass
class Finding:
    """Result for one skill or the base."""

    prompts: int = 0
    largest: float = 0.0  # largest absolute difference of logits
    texts: int = 0
    same: int = 0  # identical texts
    ties: int = 0  # texts that first differ where torch's two best logits are within _TIE


@click.command()
@click.argument("checkpoint_dir", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("exported", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--skills", type=click.Path(exists=True, file_okay=False, path_type=Path), required=True)
@click.option("--data", type=click.Path(exists=True, file_okay=False, path_type=Path), required=True)
@click.option("--tasks", default="legal_clause_type,shell_command,request_to_json,assistant_routing,banking_intent")
@click.option("--prompts", default=50, show_default=True)
@click.option("--texts", default=5, show_default=True, help="Greedy continuations per skill.")
@click.option("--tokens", default=64, show_default=True)
@click.option("--json", "json_path", type=click.Path(path_type=Path))
def main(
    checkpoint_dir: Path,
    exported: Path,
    skills: Path,
    data: Path,
    tasks: str,
    prompts: int,
    texts: int,
    tokens: int,
    json_path: Path | None,
) -> None:
    """Compare an fp32 export with torch."""
    names = tasks.split(",")
    rows = [row for name in names for row in read_rows(data / "skills" / name / "valid.jsonl")[: prompts // len(names)]]
    runtime = Runtime.load(exported, threads=2)
    findings: dict[str, Finding] = {}
    packages: list[Skill | None] = [None, *(read_skill(path) for path in sorted(skills.glob("*.lime")))]
    for skill in packages:
        name = "base" if skill is None else skill.name
        experts = 1 if skill is None else skill.manifest.experts
        model, tokenizer, _ = prepare(checkpoint_dir, Recipe(name="parity", experts=experts), torch.float32)
        if skill is not None:
            checkpoint.set_vectors(model, skill.tensors)
            runtime.load_skill(skill.path)
        model.eval()
        predictor = Predictor(model, tokenizer)
        asked = [predictor.prompt(row) for row in rows]
        if skill is None:
            with model.disable_adapter():
                findings[name] = _compare(predictor, exported, runtime, None, asked, texts, tokens)
        else:
            findings[name] = _compare(predictor, exported, runtime, skill, asked, texts, tokens)
        click.echo(f"{name}: {findings[name]}")
    if json_path:
        json_path.write_text(json.dumps({k: vars(v) for k, v in findings.items()}, indent=1) + "\n", "utf-8")


@torch.no_grad()
def _compare(
    predictor: Predictor,
    exported: Path,
    runtime: Runtime,
    skill: Skill | None,
    asked: Sequence[Prompt],
    texts: int,
    tokens: int,
) -> Finding:
    found = Finding()
    graph = _Graph(exported, runtime, skill)
    for prompt in track(asked, "logits", transient=True):
        theirs = predictor.model(torch.tensor([prompt.ids])).logits[0].numpy()
        found.largest = max(found.largest, float(np.abs(theirs - graph.logits(prompt.ids)).max()))
        found.prompts += 1
    step = max(1, len(asked) // texts)
    for prompt in track(asked[::step][:texts], "texts", transient=True):
        (torch_ids,) = predictor.generate([prompt], tokens)
        text = predictor.tokenizer.decode(prompt.ids)
        answer = runtime.generate(text, skill=None if skill is None else skill.name, raw=True, max_new_tokens=tokens)
        ours = [i for i in answer.token_ids if i != predictor.tokenizer.eos_token_id]
        found.texts += 1
        found.same += ours == torch_ids
        found.ties += ours != torch_ids and _is_tie(predictor, prompt, torch_ids, ours)
    return found


def _is_tie(predictor: Predictor, prompt: Prompt, one: Sequence[int], other: Sequence[int]) -> bool:
    shared = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    ids = torch.tensor([[*prompt.ids, *one[:shared]]])
    best = predictor.model(ids).logits[0, -1].topk(2).values
    return bool(best[0] - best[1] < _TIE)


class _Graph:
    """The exported graph, run over whole prompts directly in onnxruntime."""

    def __init__(self, directory: Path, runtime: Runtime, skill: Skill | None) -> None:
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.log_severity_level = 3
        self.session = ort.InferenceSession(str(directory / "model.onnx"), options, providers=["CPUExecutionProvider"])
        config = json.loads((directory / "genai_config.json").read_text("utf-8"))
        self.head_size = config["model"]["decoder"]["head_size"]
        table = runtime.contract.table
        bank, named = table.bank([] if skill is None else [skill.tensors])
        self.feeds: dict[str, Any] = {"lime.bank": bank, "lime.skill_ids": named[-1:, None]}

    def logits(self, ids: Sequence[int]) -> npt.NDArray[np.float32]:
        """Logits of a prompt, [S, V]."""
        feeds = self.feeds | {"input_ids": np.array([ids]), "attention_mask": np.ones((1, len(ids)), np.int64)}
        for value in self.session.get_inputs():
            if value.name.startswith("past_key_values"):
                feeds[value.name] = np.zeros((1, value.shape[1], 0, self.head_size), np.float32)
        return self.session.run(["logits"], feeds)[0][0]  # type: ignore[no-any-return]


if __name__ == "__main__":
    main()
