"""LoRA on the same rows for the same steps as a skill: the anchor of the README's table.

    python benchmarks/lora.py DATA_FOLDER -o FOLDER --steps 120     # trains; writes a PEFT LoRA
    python benchmarks/lora.py DATA_FOLDER -o FOLDER --evaluate      # base and LoRA on test.jsonl, in torch

Rank 8 on q, k, v, o, alpha 16, PEFT as it is. Everything else (batches, schedule, seed, the metric)
is the code that `lime-edge learn` runs.
"""

from __future__ import annotations

import json
import platform
from pathlib import Path

import click
import torch
from peft import LoraConfig, PeftModel, get_peft_model

from lime_edge import backbone
from lime_edge.data import Collator, Examples
from lime_edge.evaluate import examples
from lime_edge.metrics import score
from lime_edge.peft_config import ATTENTION
from lime_edge.predict import Predictor
from lime_edge.rows import read_rows
from lime_edge.training import Plan, fit


@click.command()
@click.argument("data", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="Folder of the LoRA.")
@click.option("-m", "--model", default=backbone.DEFAULT, show_default=True)
@click.option("--rank", default=8, show_default=True)
@click.option("--steps", default=120, show_default=True)
@click.option("--batch", default=8, show_default=True)
@click.option("--rate", default=1e-3, show_default=True)
@click.option("--rows", default=500, show_default=True, help="Test rows at most.")
@click.option("--evaluate", is_flag=True, help="Measure instead of training.")
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Also write the figures there.")
def main(
    data: Path,
    output: Path,
    model: str,
    rank: int,
    steps: int,
    batch: int,
    rate: float,
    rows: int,
    evaluate: bool,
    json_path: Path | None,
) -> None:
    """Train or measure a LoRA."""
    net, tokenizer = backbone.load(backbone.resolve(model), backbone.training_dtype())
    figures: dict[str, object] = {}
    if evaluate:
        figures |= _evaluate(PeftModel.from_pretrained(net, str(output)), tokenizer, data, rows)
        figures["bytes"] = (output / "adapter_model.safetensors").stat().st_size
    else:
        config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=list(ATTENTION))
        wrapped = get_peft_model(net, config)
        examples = Examples(tokenizer, read_rows(data / "train.jsonl"), 512)
        plan = Plan(steps=steps, batch=batch, shared_rate=rate, save_every=10 * steps)
        figures |= fit(wrapped, examples, None, Collator(tokenizer.pad_token_id), plan, output / "run")
        wrapped.save_pretrained(str(output))
    figures |= {"machine": platform.processor() or platform.machine(), "threads": torch.get_num_threads()}
    text = json.dumps({"data": data.name, "rank": rank, **figures})
    click.echo(text)
    if json_path:
        json_path.write_text(text + "\n", "utf-8")


def _evaluate(model: PeftModel, tokenizer: object, data: Path, count: int) -> dict[str, object]:
    rows = examples(data, count)  # the rows that `lime-edge eval --rows` measures
    predictor, wanted = Predictor(model, tokenizer), [row.answer for row in rows]
    lora = score(predictor.answers(rows, label="LoRA"), wanted)
    return {"rows": lora.rows, "lora": {"exact": lora.exact, "f1": lora.f1}}


if __name__ == "__main__":
    main()
