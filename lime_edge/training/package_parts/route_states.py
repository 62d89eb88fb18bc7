"""Reads requests with the frozen backbone, for the states by which a skill is chosen; adds centroids to packages."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from lime_edge.common.files import reason
from lime_edge.contract.names import ROUTE_FILE
from lime_edge.errors import ConfigError, DataError, SkillMismatchError
from lime_edge.evaluation.examples import Row, find_files, read_rows
from lime_edge.evaluation.instruction import Instruction
from lime_edge.skills.package import Skill, read_skill, write_skill
from lime_edge.skills.route import Route
from lime_edge.skills.route_statistics import RouteStatistics, read_statistics, write_statistics
from lime_edge.training import backbone, checkpoint
from lime_edge.training.dataset import encode_prompt
from lime_edge.training.predictor import pad_id
from lime_edge.training.training_rows import pick

from .route_fit import fit_route, fit_statistics

Float32 = npt.NDArray[np.float32]

GENERAL_TEXT = Path(__file__).parents[2] / "shipped" / "general_text.json"
DEPTH = 0.4  # share of the layers after which states are compared; docs/routing.md has others
ROWS = 120  # requests that the centroids of a skill come from
_TASK_ROWS = 12  # texts of a task that the statistics come from, with its instruction and without
_TOKENS = 2048  # of one run
_ROUNDED_ROWS = 3  # texts of a kind that are also read with rounded weights
_REFERENCE = 24  # texts by which a model finds how far its precision moves states
_BLOCK = 32  # weights that are rounded together
_NOISE = 10  # texts of each of four kinds
_LONGEST = 512  # tokens of a text; longer ones are left out


def states_of(model: Any, tokenizer: Any, rows: Sequence[Row], layer: int) -> Float32:
    """States of the last tokens of prompts as the base reads them, each divided by its root mean square.

    Args:
        model: A transformers model of the backbone, without an adapter.
        tokenizer: Its tokenizer.
        rows: Rows whose messages are the prompts; those of more than 512 tokens are left out.
        layer: From 1 to the number of layers - 1.

    Returns:
        [n, D], n <= the number of rows, by length.
    """
    encoded = sorted((encode_prompt(tokenizer, row.messages)[0] for row in rows), key=len)
    encoded = [ids for ids in encoded if len(ids) <= _LONGEST]
    found, start = [np.zeros((0, model.config.hidden_size), np.float32)], 0
    while start < len(encoded):
        count = max(1, _TOKENS // len(encoded[start]))
        while count > 1 and count * len(encoded[min(start + count, len(encoded)) - 1]) > _TOKENS:
            count -= 1
        found.append(_run(model, encoded[start : start + count], layer, pad_id(tokenizer)))
        start += count
    states = np.concatenate(found)
    scale = np.sqrt(np.mean(np.square(states, dtype=np.float64), -1, keepdims=True)) + 1e-12
    scaled: Float32 = (states / scale).astype(np.float32)
    return scaled


def route_of_rows(checkpoint_dir: Path, rows: Sequence[Row], seed: int = 0) -> Route | None:
    """The centroids of a skill's requests; None if the checkpoint has no statistics, or the requests are too long.

    Args:
        checkpoint_dir: The checkpoint.
        rows: Rows with the bare requests as prompts; at most 120 are read.
        seed: Which ones.

    Raises:
        ModelError: The statistics cannot be used.
    """
    path = checkpoint_dir / ROUTE_FILE
    if not path.exists():
        return None
    statistics, _ = read_statistics(path)
    model, tokenizer = _backbone(checkpoint_dir)
    states = states_of(model, tokenizer, pick(rows, ROWS, seed), statistics.layer)
    return fit_route(states, statistics) if len(states) else None


def add_route(package: Path, data: Path, checkpoint_dir: Path, output: Path, version: str | None = None) -> Skill:
    """Write a skill with the centroids of its requests; its vectors stay the same, bit for bit.

    The digest changes with the centroids, so the package has to be signed again.

    Args:
        package: A package of format 2.
        data: Its training data: a file, or a folder with a train.jsonl.
        checkpoint_dir: The checkpoint that it was learned on.
        output: The file to write; it may be the package itself.
        version: Of the new package; None: that of the package.

    Raises:
        SkillFormatError: The package is not valid.
        SkillMismatchError: It was learned on another checkpoint, or has format 1.
        ConfigError: The checkpoint has no statistics.
        DataError: The data cannot be used.
    """
    skill = read_skill(package)
    faults = []
    if skill.manifest.format == 1:
        faults.append("it has format 1, which has no room for centroids: learn it again")
    found = backbone.digest(_where(checkpoint_dir))
    if skill.manifest.backbone != found:
        faults.append(f"it was made for the backbone {skill.manifest.backbone[:12]}, the checkpoint is of {found[:12]}")
    if faults:
        raise SkillMismatchError(f"{package} cannot get centroids", faults)
    rows = _rows(data)
    interface, cut = skill.interface, Instruction.of(rows)
    if skill.manifest.made is None or skill.manifest.made["instruction"] == "kept":
        cut = Instruction(interface.prefix, interface.suffix)
    route = route_of_rows(checkpoint_dir, [cut.cut(row) for row in rows])
    if route is None:
        raise ConfigError(
            f"{checkpoint_dir} has no {ROUTE_FILE}, or all rows are too long: lime-edge route -c {checkpoint_dir} "
            "DATA... makes it"
        )
    dtype: Any = skill.dtype.lower()
    manifest = skill.manifest if version is None else replace(skill.manifest, version=version)
    return write_skill(output, manifest, skill.tensors, dtype, skill.draft, route)


def add_statistics(checkpoint_dir: Path, data: Sequence[str], seed: int = 0) -> RouteStatistics:
    """Write the statistics of a checkpoint, which exports copy and `learn` makes centroids with.

    Args:
        checkpoint_dir: The checkpoint.
        data: What it was trained on, and other tasks: data files, one task each, or folders of them. General text of
            other kinds is added: conversation, other languages, characters at random.
        seed: Which rows are read.

    Raises:
        ConfigError: Not a checkpoint, or it cannot be written.
        DataError: The data cannot be used, or are too few.
    """
    model, tokenizer = _backbone(checkpoint_dir)
    layer = max(1, min(round(DEPTH * model.config.num_hidden_layers), model.config.num_hidden_layers - 1))
    texts = {kind: list(map(_request, some)) for kind, some in general_text().items()}
    for number, path in enumerate(find_files(data, "train")):
        rows = read_rows(path)
        chosen, cut = pick(rows, _TASK_ROWS, seed), Instruction.of(rows)
        texts[f"{number} whole"] = chosen
        if cut:
            texts[f"{number} bare"] = [cut.cut(row) for row in chosen]
    states = {kind: states_of(model, tokenizer, rows, layer) for kind, rows in texts.items()}
    kinds = [kind for kind, found in states.items() for _ in found]
    few = [row for rows in texts.values() for row in rows[:_ROUNDED_ROWS]]
    plain = states_of(model, tokenizer, few, layer)
    asked = tuple(general_text()["conversation"][:_REFERENCE])
    reference = states_of(model, tokenizer, list(map(_request, asked)), layer).mean(0)
    round_weights(model)
    noise = states_of(model, tokenizer, few, layer) - plain
    if not kinds:
        raise DataError("no text is short enough to be read")
    fitted = fit_statistics(np.concatenate([*states.values()]), kinds, layer, noise)
    try:
        return write_statistics(checkpoint_dir / ROUTE_FILE, replace(fitted, reference=reference, texts=asked))
    except OSError as error:
        raise ConfigError(f"{checkpoint_dir / ROUTE_FILE} cannot be written: {reason(error)}") from error


def round_weights(model: Any) -> None:
    """Round the weights of a model's projections as int4 exports do, in place: to 16 values in every block of 32."""
    for module in model.get_decoder().modules():
        if isinstance(module, torch.nn.Linear) and module.in_features % _BLOCK == 0:
            with torch.no_grad():
                blocks = module.weight.float().view(module.out_features, -1, _BLOCK)
                low, high = blocks.amin(-1, keepdim=True).clamp_max(0), blocks.amax(-1, keepdim=True).clamp_min(0)
                scale = ((high - low) / 15).clamp_min(1e-12)
                zero = (-low / scale).round()
                rounded = ((blocks / scale).round() + zero).clamp(0, 15) - zero
                module.weight.copy_((rounded * scale).view_as(module.weight))


def general_text() -> dict[str, list[str]]:
    """Texts that are no task, by kind: those that come with this package, and noise."""
    found: dict[str, list[str]] = json.loads(GENERAL_TEXT.read_text("utf-8"))
    random, words = (
        np.random.default_rng(0),
        [word for texts in found.values() for text in texts for word in text.split()],
    )
    noise = []
    for _ in range(_NOISE):
        size = int(random.integers(4, 100))
        ascii_only, any_script = (random.integers(0x21, 0x7F, size), random.integers(0xA1, 0x3000, size))
        noise.append("".join(map(chr, ascii_only)))
        noise.append("".join(chr(code) for code in any_script if chr(code).isprintable()))
        noise.append(" ".join(random.choice(words, 1 + size // 5)))
        noise.append(" ".join(map(str, random.integers(0, 10 ** random.integers(1, 7), 1 + size // 5))))
    return {**found, "noise": noise}


def _request(text: str) -> Row:
    return Row(({"role": "user", "content": text},), "", ())


def _run(model: Any, prompts: Sequence[Sequence[int]], layer: int, pad: int) -> Float32:
    """States [b, D] of the last tokens, in one run; padding on the right is never looked at."""
    ids = torch.full((len(prompts), max(map(len, prompts))), pad)
    for row, prompt in enumerate(prompts):
        ids[row, : len(prompt)] = torch.tensor(prompt)
    with torch.inference_mode():
        states = model.get_decoder()(input_ids=ids, output_hidden_states=True, use_cache=False).hidden_states[layer]
    last = torch.tensor([len(prompt) - 1 for prompt in prompts])
    found: Float32 = states[torch.arange(len(prompts)), last].float().numpy()
    return found


def _backbone(checkpoint_dir: Path) -> tuple[Any, Any]:
    model, tokenizer = backbone.load(_where(checkpoint_dir), backbone.training_dtype())
    return model.eval(), tokenizer


def _where(checkpoint_dir: Path) -> Path:
    return backbone.resolve(checkpoint.read_config(checkpoint_dir).base_model_name_or_path or backbone.DEFAULT)


def _rows(data: Path) -> list[Row]:
    (path,) = find_files([str(data)], "train") if data.is_dir() else [data]
    return read_rows(path)
