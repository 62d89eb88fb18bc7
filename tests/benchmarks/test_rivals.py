"""The rivals against the definitions of their papers in numpy, one token and one expert at a time; and gradients.

What is checked of each: values of the layer, central differences of every parameter it trains, and how
many parameters it has where LiME's comparison (arXiv 2604.02338) prints a number.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor, nn

from benchmarks.multitask.methods import METHODS, Facts
from benchmarks.rivals import clusters
from benchmarks.rivals.mixlora import MixBlock, PlainLora
from benchmarks.rivals.per_row import Embedded, Mocle, More, table
from benchmarks.rivals.per_token import HydraLora, MoeDora, MoeLora, MoeLoraFA, Mola, allocate
from benchmarks.rivals.plain import SoftPrompt
from benchmarks.rivals.scaffold import Adapted, Call, Mixture, Settings, keep_top, load_balance
from tests.reference import softmax
from tests.support.tiny_training import backbone, ids

Array = npt.NDArray[Any]
Held = Mapping[str, Array]

ROWS, TOKENS, D, H = 2, 3, 5, 6
SETTINGS = Settings(experts=3, rank=2, scaling=1.5, top_k=2, tasks=4, clusters=4)
KINDS = torch.tensor([3, 1])  # task or cluster of each row


def layer(kind: type[Adapted], bias: bool = True) -> Adapted:
    """In float64, every parameter random, as large as the frozen output."""
    torch.manual_seed(3)
    call = Call(task=KINDS, cluster=KINDS)
    base = nn.Linear(D, H, bias=bias)
    made = kind(base, SETTINGS, call, table(4)) if issubclass(kind, Embedded) else kind(base, SETTINGS, call)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.copy_(torch.randn(parameter.shape))
    if isinstance(made, MoeDora):
        made.squares = base.weight.detach().square().sum(1)
    return made.double().eval()


def arrays(module: nn.Module) -> dict[str, Array]:
    return {name: p.detach().numpy() for name, p in module.named_parameters()}


def top(prob: Array, count: int) -> Array:
    """The `count` largest, renormalised."""
    kept = np.where(prob >= np.sort(prob)[-count], prob, 0)
    result: Array = kept / kept.sum()
    return result


def lora(held: Held, x: Array, expert: int) -> Array:
    """s B_e A_e x of one token."""
    result: Array = SETTINGS.scaling * held["b"][expert] @ (held["a"][expert] @ x)
    return result


def frozen(held: Held, x: Array) -> Array:
    result: Array = held["base.weight"] @ x + held.get("base.bias", 0)
    return result


def moelora(held: Held, x: Array, row: int) -> Array:
    w = top(softmax(held["gate"] @ x), 2)
    return frozen(held, x) + sum(w[e] * lora(held, x, e) for e in range(3)) + lora(held, x, 3)  # type: ignore[no-any-return]


def mola(held: Held, x: Array, row: int) -> Array:
    w = top(softmax(held["gate"] @ x), 2)
    return frozen(held, x) + sum(w[e] * lora(held, x, e) for e in range(3))  # type: ignore[no-any-return]


def moedora(held: Held, x: Array, row: int) -> Array:
    w = top(softmax(held["gate"] @ x), 2)
    out = np.zeros(H) + held.get("base.bias", 0)
    for e in range(3):
        adapted = held["base.weight"] + SETTINGS.scaling * held["b"][e] @ held["a"][e]
        norms = np.linalg.norm(adapted, axis=1)
        out = out + w[e] * (held["magnitude"][e] / norms) * (adapted @ x)
    return out + lora(held, x, 3)


def hydralora(held: Held, x: Array, row: int) -> Array:
    w = softmax(held["gate"] @ x)
    low = held["a"][0] @ x
    return frozen(held, x) + sum(w[e] * SETTINGS.scaling * held["b"][e] @ low for e in range(3))  # type: ignore[no-any-return]


def more(held: Held, x: Array, row: int) -> Array:
    chosen = int(np.argmax(held["gate"] @ held["table.weight"][int(KINDS[row])]))
    ranks = SETTINGS.rank * (chosen + 1)
    result: Array = SETTINGS.scaling * held["b"][0][:, :ranks] @ (held["a"][0][:ranks] @ x)
    return frozen(held, x) + result


def mocle(held: Held, x: Array, row: int) -> Array:
    g = softmax(held["gate"] @ held["table.weight"][int(KINDS[row])] / 0.05)
    best = int(np.argmax(g))
    return frozen(held, x) + g[best] * lora(held, x, best) + (1 - g[best]) * lora(held, x, 3)  # type: ignore[no-any-return]


DEFINED: list[tuple[type[Adapted], Callable[[Held, Array, int], Array]]] = [
    (MoeLora, moelora),
    (MoeLoraFA, moelora),
    (MoeDora, moedora),
    (HydraLora, hydralora),
    (Mola, mola),
    (More, more),
    (Mocle, mocle),
]
NAMES = [kind.__name__ for kind, _ in DEFINED]


def inputs() -> Tensor:
    return torch.randn(ROWS, TOKENS, D, dtype=torch.float64, generator=torch.Generator().manual_seed(8))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("kind", "defined"), DEFINED, ids=NAMES)
def test_values_are_those_of_the_paper(kind: type[Adapted], defined: Callable[..., Array], bias: bool) -> None:
    made, x = layer(kind, bias), inputs()
    held = arrays(made)
    wanted = np.stack([[defined(held, token, row) for token in x[row].numpy()] for row in range(ROWS)])
    np.testing.assert_allclose(made(x).detach().numpy(), wanted, rtol=1e-6, atol=1e-6)  # probabilities are float32


def slopes(made: nn.Module, x: Tensor, parameter: Tensor, step: float = 1e-3) -> Array:
    """Central differences of a weighted sum of the outputs; the step is coarse because routing is float32."""
    weights = torch.randn(made(x).shape, dtype=x.dtype, generator=torch.Generator().manual_seed(4))
    found = np.zeros(parameter.numel())
    flat = parameter.detach().view(-1)
    with torch.no_grad():
        for i in range(len(flat)):
            kept = float(flat[i])
            ends = []
            for there in (kept + step, kept - step):
                flat[i] = there
                ends.append(float((made(x) * weights).sum()))
            flat[i] = kept
            found[i] = (ends[0] - ends[1]) / (2 * step)
    (made(x) * weights).sum().backward()
    return found.reshape(parameter.shape)


#: What does not follow the slope on purpose: DoRA's norms are constants, MoRE's choice is straight-through.
CONSTANT = {MoeDora: {"a", "b"}, More: {"gate", "table.weight"}}


@pytest.mark.parametrize(("kind", "defined"), DEFINED, ids=NAMES)
def test_gradients_are_the_slopes(kind: type[Adapted], defined: Callable[..., Array]) -> None:
    names = [name for name, p in layer(kind).named_parameters() if "base" not in name and p.requires_grad]
    for name in set(names) - CONSTANT.get(kind, set()):
        made = layer(kind)
        parameter = dict(made.named_parameters())[name]
        wanted = slopes(made, inputs(), parameter)
        assert np.abs(wanted).max() > 1e-3, name
        assert parameter.grad is not None
        np.testing.assert_allclose(parameter.grad.numpy(), wanted, rtol=2e-3, atol=2e-3 * np.abs(wanted).max())


def test_the_norms_of_moedora_carry_no_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the norms held as they are, the gradients of A and B are the slopes."""
    for name in ("a", "b"):
        made = layer(MoeDora)
        assert isinstance(made, MoeDora)
        norms = made.norms()
        monkeypatch.setattr(made, "norms", lambda norms=norms: norms)
        parameter = dict(made.named_parameters())[name]
        wanted = slopes(made, inputs(), parameter)
        assert parameter.grad is not None
        np.testing.assert_allclose(parameter.grad.numpy(), wanted, rtol=2e-3, atol=2e-3 * np.abs(wanted).max())


def test_more_chooses_straight_through() -> None:
    """The gate's gradient is that of the soft choice at the hard one's values."""
    made, x = layer(More), inputs()
    made(x).sum().backward()
    found = dict(made.named_parameters())["gate"].grad
    assert found is not None
    assert found.abs().min(1).values.max() > 0
    held = arrays(made)
    felt = []
    for row in range(ROWS):
        t = held["table.weight"][int(KINDS[row])]
        prob = softmax(held["gate"] @ t)
        worth = np.zeros(3)  # of choosing each: sums of blocks up to it
        for token in x[row].numpy():
            low = held["a"][0] @ token
            parts = [
                SETTINGS.scaling * (held["b"][0][:, 2 * e : 2 * e + 2] @ low[2 * e : 2 * e + 2]).sum() for e in range(3)
            ]
            worth += np.cumsum(parts)
        felt.append(np.outer(prob * (worth - prob @ worth), t))
    np.testing.assert_allclose(found.numpy(), sum(felt), rtol=1e-5)


def test_lora_fa_keeps_its_down_projections() -> None:
    names = {name for name, p in layer(MoeLoraFA).named_parameters() if p.requires_grad and "base" not in name}
    assert names == {"b", "gate"}


def test_mixlora_is_experts_that_are_whole_blocks() -> None:
    torch.manual_seed(5)
    block = nn.Module()
    block.gate_proj, block.up_proj = nn.Linear(D, H, bias=False), nn.Linear(D, H, bias=False)
    block.down_proj, block.act_fn = nn.Linear(H, D, bias=False), nn.SiLU()
    made = MixBlock(block, SETTINGS, Call())
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.copy_(torch.randn(parameter.shape))
    made, x = made.double().eval(), inputs()
    held = arrays(made)

    def part(name: str, expert: int, value: Array) -> Array:
        adapted = held[f"block.{name}.weight"] + 1.5 * held[f"b.{name}"][expert] @ held[f"a.{name}"][expert]
        result: Array = adapted @ value
        return result

    def defined(token: Array) -> Array:
        w = top(softmax(held["router"] @ token), 2)
        out = np.zeros(D)
        for e in range(3):
            gate = part("gate_proj", e, token)
            out += w[e] * part("down_proj", e, gate / (1 + np.exp(-gate)) * part("up_proj", e, token))
        return out

    wanted = np.stack([[defined(token) for token in row] for row in x.numpy()])
    np.testing.assert_allclose(made(x).detach().numpy(), wanted, rtol=1e-5, atol=1e-5 * np.abs(wanted).max())
    for name in ("router", "a.gate_proj", "b.up_proj", "a.down_proj", "b.down_proj"):
        made.zero_grad()
        parameter = dict(made.named_parameters())[name]
        found = slopes(made, x, parameter, 1e-4)
        assert parameter.grad is not None
        np.testing.assert_allclose(parameter.grad.numpy(), found, rtol=2e-3, atol=2e-3 * np.abs(found).max())


def test_mixlora_has_plain_lora_in_its_attention() -> None:
    made, x = layer(PlainLora), inputs()
    held = arrays(made)
    wanted = np.stack([[frozen(held, token) + lora(held, token, 0) for token in row] for row in x.numpy()])
    np.testing.assert_allclose(made(x).detach().numpy(), wanted, rtol=1e-9)


def test_the_largest_probabilities_are_kept() -> None:
    prob = torch.tensor([[0.5, 0.1, 0.3, 0.1], [0.0, 0.2, 0.2, 0.6]])
    torch.testing.assert_close(keep_top(prob, 2)[0], torch.tensor([0.625, 0.0, 0.375, 0.0]))
    assert int((keep_top(prob, 2)[1] > 0).sum()) == 2  # ties too
    assert torch.equal(keep_top(prob, 4), prob)


def test_load_balance_is_one_when_even_and_sees_no_padding() -> None:
    even = torch.full((1, 4, 4), 0.25)
    chosen = torch.eye(4)[None]
    assert float(load_balance(even, chosen, None)) == pytest.approx(1)
    prob = torch.tensor([[[0.7, 0.3], [0.6, 0.4], [0.0, 1.0]]])
    weights = torch.tensor([[[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]])
    assert float(load_balance(prob, weights, torch.tensor([[1, 1, 0]]))) == pytest.approx(2 * 0.65)


def test_mola_gives_higher_layers_more_experts() -> None:
    assert [allocate(f"model.layers.{i}.self_attn.q_proj", 32, 5) for i in (0, 8, 16, 31)] == [2, 4, 6, 8]
    assert [allocate(f"model.layers.{i}.self_attn.q_proj", 32, 4) for i in (0, 8, 16, 31)] == [2, 3, 5, 6]
    with pytest.raises(ValueError, match="in no layer"):
        allocate("lm_head", 32, 4)


def test_clusters_find_what_is_apart() -> None:
    embedding = torch.eye(6)
    prompts = [[0, 1], [1, 0, 0], [0, 0], [4, 5], [5], [4, 4, 5]]
    points = clusters.represent(embedding, prompts)
    torch.testing.assert_close(points.norm(dim=1), torch.ones(6))
    centres = clusters.k_means(points, 2, seed=0)
    assert torch.equal(centres, clusters.k_means(points, 2, seed=0))
    found = clusters.assign(points, centres)
    assert found[0] == found[1] == found[2] != found[3] == found[4] == found[5]


# Parameters of LLaVA-OneVision-Qwen2-7B's adapted modules: 28 decoder layers, 26 of the vision tower's.
LLAVA = [(3584, 3584), (3584, 512), (3584, 512), (3584, 3584)] * 28 + [(1152, 1152)] * 4 * 26
QWEN_SMALL = [(896, 896), (896, 128), (896, 128), (896, 896)] * 24  # of the efficiency figure
PRINTED: list[tuple[type[Adapted], Any, float, float]] = [
    (MoeLora, LLAVA, 10.79e6, 0.005e6),
    (MoeDora, LLAVA, 12.19e6, 0.005e6),
    (HydraLora, LLAVA, 5.92e6, 0.005e6),
    (Mola, LLAVA, 9.04e6, 0.01e6),  # 9.048M; it is printed rounded down, or of uneven layers
    (PlainLora, LLAVA, 1.74e6, 0.005e6),
    (MoeLora, QWEN_SMALL, 1.70e6, 0.005e6),
    (MoeDora, QWEN_SMALL, 1.89e6, 0.005e6),
]


@pytest.mark.parametrize(("kind", "modules", "printed", "rounding"), PRINTED)
def test_numbers_of_parameters_are_those_printed(
    kind: type[Adapted], modules: list[tuple[int, int]], printed: float, rounding: float
) -> None:
    total = 0
    for shape in modules:
        with torch.device("meta"):
            made = kind(nn.Linear(*shape), Settings(), Call())
        total += sum(p.numel() for name, p in made.named_parameters() if "base" not in name)
    assert abs(total - printed) <= rounding


@pytest.mark.parametrize("name", list(METHODS))
def test_every_method_starts_as_the_backbone_and_learns(name: str) -> None:
    torch.manual_seed(0)
    plain = backbone()
    tokens = ids(3, 9)
    mask = torch.ones_like(tokens)
    mask[0, :4] = 0
    given = {"input_ids": tokens, "attention_mask": mask, "position_ids": (mask.cumsum(1) - 1).clamp_min(0)}
    given |= {"labels": tokens, "logits_to_keep": torch.arange(9)}
    with torch.no_grad():
        before = plain.eval()(**given)
    built = METHODS[name].build(backbone(), Facts(2, [[3, 4], [5, 6], [7, 8]], 0))
    model = built.model.eval()
    if isinstance(model, Mixture):
        model.set_rows(torch.tensor([0, 1, 1]), torch.tensor([0, 2, 1]))
    with torch.no_grad():
        found = model(**given)
    if name not in ("prompt-tuning", "lime-prompt", "lime-slicefine"):  # virtual tokens; p times W's own rows
        torch.testing.assert_close(found.logits, before.logits, rtol=1e-4, atol=1e-4)
    trained = {key: p for key, p in model.named_parameters() if p.requires_grad}
    optimizer = torch.optim.AdamW(trained.values(), lr=3e-2)
    start = {key: p.detach().clone() for key, p in trained.items()}
    model.train()
    losses = []
    for _ in range(6):
        loss = model(**given).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] - 0.005, losses
    still = [key for key, p in trained.items() if torch.equal(p.detach(), start[key])]
    assert still == [], still


def test_a_soft_prompt_is_pefts_own_forward() -> None:
    torch.manual_seed(0)
    model = METHODS["prompt-tuning"].build(backbone(), Facts(1, [[3]], 0)).model.eval()
    assert isinstance(model, SoftPrompt)
    tokens = ids(2, 7)
    with torch.no_grad():
        wanted = model.model(input_ids=tokens, attention_mask=torch.ones_like(tokens), labels=tokens)
        places = torch.arange(7).expand(2, -1)
        found = model(input_ids=tokens, attention_mask=torch.ones_like(tokens), position_ids=places)
        torch.testing.assert_close(found.logits, wanted.logits[:, model.count :])
        padded = torch.cat([torch.full((2, 3), 2), tokens], 1)
        mask = torch.cat([torch.zeros(2, 3, dtype=torch.long), torch.ones_like(tokens)], 1)
        places = (mask.cumsum(1) - 1).clamp_min(0)
        found = model(input_ids=padded, attention_mask=mask, position_ids=places)
    torch.testing.assert_close(found.logits[:, 3:], wanted.logits[:, model.count :], rtol=1e-4, atol=1e-4)
