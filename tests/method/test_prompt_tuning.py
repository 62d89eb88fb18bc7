"""Prompt tuning: torch equals the definition; in graphs and in the runtime a prefix affects only its own row."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
import torch

from lime_edge import Runtime, read_skill
from lime_edge.contract.module_table import Module
from lime_edge.contract.routing import MODES, Mode, Routing
from lime_edge.contract.vector_kinds import KINDS, PREFIX
from lime_edge.errors import ConfigError, LimeError
from lime_edge.exporters import AdapterWeights
from lime_edge.exporters.genai_builder import build_backbone
from lime_edge.exporters.passes.insert_prefix import InsertPrefix
from lime_edge.method.config import LimeConfig
from lime_edge.method.prompt_tuning import LimePrompt
from lime_edge.runtime.genai import write_adapter
from lime_edge.training import checkpoint
from lime_edge.training.checkpoint import tuner
from lime_edge.training.export_checkpoint import export_checkpoint
from lime_edge.training.general_skill import general_skill
from lime_edge.training.learn_skill import Recipe, learn
from lime_edge.training.plan import TrainingPlan
from lime_edge.training.predictor import Predictor, Prompt
from tests import reference
from tests.support.runtime_models import Plain, contract, skill
from tests.support.tiny_training import backbone, backbone_dir, ids, logits, save, scratch, tasks, tokenizer, wrapped

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")

PLAN = TrainingPlan(steps=3, batch=4)
TOKENS = ids(2, 9)


@pytest.mark.parametrize("mode", MODES)
def test_a_prefix_is_its_definition(mode: Mode) -> None:
    """Values, and gradients by central differences along a direction."""
    model = wrapped(base="prompt", r=5, routing=Routing(experts=3, mode=mode))
    (layer,) = tuner(model).layers().values()
    assert isinstance(layer, LimePrompt)
    names = ("base", "offset", "expert", "gain", "shift")
    leaves = {name: getattr(layer, f"lime_{name}")["default"].requires_grad_() for name in names}
    at = {name: leaf.detach().double().numpy() for name, leaf in leaves.items()}

    def defined(found: dict[str, Any]) -> Any:
        vectors: dict[str, Any] = {kind: found[kind] for kind in KINDS[:3]}
        return reference.lime_prompt(found["base"], found["offset"], vectors, layer.lime_config["default"].routing)

    found, wanted = layer.prefix(), defined(at)
    np.testing.assert_allclose(found.detach().numpy(), wanted, rtol=1e-5, atol=1e-5)
    rng = np.random.default_rng(0)
    pull = rng.standard_normal(wanted.shape)
    torch.autograd.backward((found * torch.tensor(pull, dtype=torch.float32)).sum())
    for name, leaf in leaves.items():
        gradient = leaf.grad.double().numpy()
        direction = rng.standard_normal(gradient.shape)
        ends = [float((pull * defined({**at, name: at[name] + sign * 1e-7 * direction})).sum()) for sign in (1, -1)]
        bound = 1e-5 * float(np.linalg.norm(gradient) * np.linalg.norm(direction))
        assert abs(float((gradient * direction).sum()) - (ends[0] - ends[1]) / 2e-7) <= bound, name


def test_virtual_tokens_are_embeddings_before_the_prompt() -> None:
    """Logits, loss, padding, cached steps and `generate` equal those of the plain model called with embeddings."""
    model, plain = wrapped(base="prompt", r=3), backbone().eval()
    (layer,) = tuner(model).layers().values()
    assert isinstance(layer, LimePrompt)
    with torch.no_grad():
        whole = torch.cat([layer.prefix().expand(2, -1, -1), plain.model.embed_tokens(TOKENS)], 1)
        first, wanted = plain(inputs_embeds=whole).logits[:, 2:].split([1, 9], 1)
        found = model(input_ids=TOKENS, labels=TOKENS)
        kept = model(input_ids=TOKENS, logits_to_keep=torch.tensor([4, 8])).logits
    torch.testing.assert_close(found.logits, wanted)
    torch.testing.assert_close(kept, wanted[:, [4, 8]])
    predicted = torch.cat([first, wanted[:, :-1]], 1).flatten(0, 1)  # the last virtual token predicts the first one
    torch.testing.assert_close(found.loss, torch.nn.functional.cross_entropy(predicted, TOKENS.flatten()))
    padded = torch.cat([torch.full((2, 4), 2), TOKENS], 1)
    mask = (torch.arange(13) >= 4).long().expand(2, -1)
    places = (mask.cumsum(1) - 1).clamp_min(0)
    torch.testing.assert_close(
        logits(model, padded, attention_mask=mask, position_ids=places)[:, 4:], wanted, rtol=1e-5, atol=1e-4
    )
    rows = TOKENS[0].tolist(), TOKENS[1, :5].tolist()
    answers = Predictor(model, tokenizer()).generate([Prompt(tuple(row), 0) for row in rows], 5)
    for row, answer in zip(rows, answers, strict=True):
        for token in answer:
            assert int(logits(model, torch.tensor([row]))[0, -1].argmax()) == token
            row.append(token)
    made = model.generate(input_ids=TOKENS[:1], attention_mask=TOKENS[:1] * 0 + 1, max_new_tokens=5, do_sample=False)
    assert made[0, 9:].tolist()[: len(answers[0])] == answers[0]


def test_what_prompt_tuning_cannot_do_is_refused(tmp_path: Path) -> None:
    model = wrapped(base="prompt", r=3)
    with pytest.raises(ConfigError, match="virtual tokens come before the prompt"):
        logits(model, TOKENS, skill_active=torch.ones(2, 9, dtype=torch.bool))
    with pytest.raises(ConfigError, match="lacks"):
        model(inputs_embeds=torch.zeros(1, 2, 64))
    with pytest.raises(ConfigError, match="expert, gain and shift alone"):
        wrapped(base="prompt", kinds=KINDS)
    with pytest.raises(ConfigError, match="a second adapter needs the same base"):
        model.add_adapter("other", LimeConfig(target_modules=["embed_tokens"]))
    directory = save(wrapped(base="prompt", r=3), tmp_path / "checkpoint")
    for recipe in (Recipe("one", rank_gate=True), Recipe("one", activation="response")):
        with pytest.raises(ConfigError, match="base is prompt; expected rank_gate False and activation"):
            learn(tasks() / "skill", directory, tmp_path / "one.lime", recipe, PLAN)


@pytest.fixture(scope="module", params=["fp32", "int4"])
def prefixed(request: pytest.FixtureRequest) -> Path:
    """An exported model of prompt tuning with four virtual tokens."""
    directory = save(wrapped(base="prompt"), scratch() / f"prompt-{request.param}")
    target = scratch() / f"prompt-model-{request.param}"
    export_checkpoint(directory, target, request.param)
    return target


def test_prefixes_in_one_batch_with_the_base(prefixed: Path) -> None:
    """The answer of a row does not depend on the other rows; a switch reuses no position of another prefix."""
    runtime = Runtime.load(prefixed, threads=1, prefix_cache=0)  # counts what is reused within a batch
    for name in ("a", "b"):
        runtime.load_skill(skill(prefixed, name, activation="always"))
    skills: list[Any] = [None, "a", "b", {"a": 0.5, "b": 0.5}]
    settings: Any = {"max_new_tokens": 6, "repetition_penalty": 1.2}
    alone = [runtime.generate("Hello", skill=one, **settings) for one in skills]
    together = runtime.generate("Hello", skill=skills, **settings)
    assert [one.token_ids for one in together] == [one.token_ids for one in alone]
    assert len({one.token_ids for one in alone}) == 4
    counts = [one.timings.prompt_tokens for one in together]
    assert counts == [counts[0], *[counts[0] + 4] * 3]
    assert [one.timings.reused_tokens for one in together] == [0] * 4
    again = runtime.generate(["Hello", "Hello"], skill="a", **settings)
    assert again[1].timings.reused_tokens == counts[1] - 2
    assert again[1].token_ids == alone[1].token_ids
    picked = [runtime.choose("Hello", ["yes", "no", "lime"], skill=one).scores for one in skills]
    assert [one.scores for one in runtime.choose("Hello", ["yes", "no", "lime"], skill=skills)] == picked
    keeping = Runtime.load(prefixed, threads=1)
    for name in ("a", "b"):
        keeping.load_skill(skill(prefixed, name, activation="always"))
    for skill_spec, wanted in zip(skills * 2, [*alone, *alone], strict=True):
        assert keeping.generate("Hello", skill=skill_spec, **settings).token_ids == wanted.token_ids


def test_the_base_of_a_prefixed_graph_is_the_plain_graph_bit_for_bit(prefixed: Path) -> None:
    """The nodes inserted between ids and embeddings must not change any bit of the base."""
    plain = scratch() / f"{prefixed.name}-plain"
    build_backbone(backbone_dir(), plain, contract(prefixed).precision)  # type: ignore[arg-type]
    tokens = ids(1, 12)[0].tolist()
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(plain / "model.onnx", options, providers=["CPUExecutionProvider"])
    feeds: dict[str, Any] = {"input_ids": np.array([tokens]), "attention_mask": np.ones((1, 12), np.int64)}
    for value in session.get_inputs():
        if value.name.startswith("past_key_values"):
            feeds[value.name] = np.zeros((1, value.shape[1], 0, 16), np.float32)
    np.testing.assert_array_equal(Plain(prefixed)(tokens), session.run(["logits"], feeds)[0][0])


def test_a_prefix_that_begins_at_the_answer_is_refused(prefixed: Path) -> None:
    runtime = Runtime.load(prefixed, threads=1)
    with pytest.raises(LimeError, match="its prefix precedes the prompt"):
        runtime.load_skill(skill(prefixed, "late", activation="response"))
    with pytest.raises(LimeError, match="cannot put virtual tokens before a prompt"):
        write_adapter(prefixed, skill(prefixed, "a", activation="always"), scratch() / "a.onnx_adapter")


def test_widths_that_fill_no_blocks_are_refused() -> None:
    weights = AdapterWeights((), Routing(experts=1), PREFIX, prefix=Module("model.embed_tokens", 40, 2))
    assert list(weights.faults()) == ["model.embed_tokens: the width is 40; expected a multiple of 64"]


def test_gemma_scales_embeddings_but_no_prefix(tmp_path: Path) -> None:
    """In a graph the scale is a node after the lookup; the prefix is inserted after it, as in torch."""
    model = wrapped("gemma3", base="prompt")
    directory = save(model, tmp_path / "checkpoint", "gemma3")
    file = general_skill(directory)
    checkpoint.set_vectors(model, read_skill(file).tensors)
    export_checkpoint(directory, tmp_path / "model", "fp32")
    tokens = ids(1, 12)
    wanted = logits(model, tokens)[0].numpy()
    r = tuner(model).lime_config.r
    found = Plain(tmp_path / "model", file)([*range(300, 300 + r), *tokens[0].tolist()])[r:]
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5 * np.abs(wanted).max())
    graph = ir.load(tmp_path / "model" / "model.onnx")
    again = InsertPrefix(contract(tmp_path / "model").table.modules[0], 64 * r, ir.DataType.FLOAT, ir.DataType.FLOAT)
    assert not again(graph).modified
