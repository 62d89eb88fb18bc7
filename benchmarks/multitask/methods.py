"""The methods of the multi-task comparison, by name: how each wraps the backbone, and its learning rates.

All have the same size: E = 4, r = 2 on q, k, v and o, scaling 2, as in LiME's comparison (arXiv 2604.02338).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from torch import Tensor, nn

from benchmarks.rivals import clusters, plain
from benchmarks.rivals.mixlora import PlainLora, insert_blocks
from benchmarks.rivals.per_row import Embedded, Mocle, More, table
from benchmarks.rivals.per_token import HydraLora, MoeDora, MoeLora, MoeLoraFA, Mola, allocate
from benchmarks.rivals.scaffold import Adapted, Call, Mixture, Settings, insert
from lime_edge.contract.routing import Routing
from lime_edge.contract.vector_kinds import Kind
from lime_edge.method.config import ATTENTION, LimeConfig
from lime_edge.method.registry import VARIANTS
from lime_edge.training import checkpoint

Family = Literal["LiME", "mixture", "PEFT"]

EXPERTS, RANK, SCALING, PROMPT = 4, 2, 2.0, 10
_TITLES = {"lora": "LoRA", "lora-fa": "LoRA-FA", "dora": "DoRA", "slicefine": "SliceFine", "prompt": "PromptTuning"}
_CLUSTERS = 64  # clusters of MoCLE, as in its paper


@dataclass(frozen=True)
class Facts:
    """What a method may know before training."""

    tasks: int  # number of tasks
    prompts: Sequence[Sequence[int]]  # token ids of the training prompts, for clustering
    seed: int


@dataclass(frozen=True)
class Built:
    """A wrapped model.

    Attributes:
        model: Has the forward of a transformers causal model.
        centres: Centres [K, D] of the clusters by which it routes, or None.
    """

    model: nn.Module
    centres: Tensor | None = None


@dataclass(frozen=True)
class Method:
    """One row of the table.

    Attributes:
        title: Name in the tables.
        family: Group in the tables.
        build: Wraps a backbone.
        rate: Learning rate.
        vector_rate: Learning rate of LiME's vectors.
    """

    title: str
    family: Family
    build: Callable[[Any, Facts], Built]
    rate: float
    vector_rate: float = 0.0


def _lime(base: str, kinds: tuple[Kind, ...], backbone: Any, _: Facts) -> Built:
    rank = {"slicefine": EXPERTS, "prompt": PROMPT}.get(base, RANK)  # SliceFine routes by its trained rows
    config = LimeConfig(
        base=base,
        r=rank,
        alpha=SCALING * rank,
        kinds=kinds,
        shared_vector=base != "prompt",
        routing=Routing(experts=EXPERTS, top_k=1),
        target_modules=["embed_tokens"] if base == "prompt" else list(ATTENTION),
    )
    return Built(checkpoint.wrap(backbone, config))


def _plain(name: str, rank: int, backbone: Any, _: Facts) -> Built:
    return Built(plain.wrap(backbone, name, ATTENTION, rank, SCALING))


def _settings(facts: Facts, experts: int = EXPERTS) -> Settings:
    return Settings(experts, RANK, SCALING, tasks=facts.tasks, clusters=min(_CLUSTERS, len(facts.prompts)))


def _mixture(layer: type[Adapted], backbone: Any, facts: Facts) -> Built:
    call, settings = Call(), _settings(facts)
    insert(backbone, ATTENTION, lambda module, _: layer(module, settings, call))
    return Built(Mixture(backbone, call, settings.balance))


def _mola(backbone: Any, facts: Facts) -> Built:
    call, layers = Call(), backbone.config.num_hidden_layers

    def make(module: nn.Linear, name: str) -> nn.Module:
        return Mola(module, _settings(facts, allocate(name, layers, EXPERTS)), call)

    insert(backbone, ATTENTION, make)
    return Built(Mixture(backbone, call, _settings(facts).balance))


def _mixlora(backbone: Any, facts: Facts) -> Built:
    call, settings = Call(), _settings(facts)
    insert(backbone, ATTENTION, lambda module, _: PlainLora(module, settings, call))
    insert_blocks(backbone, settings, call)
    return Built(Mixture(backbone, call, settings.balance))


def _by_row(layer: type[Embedded], backbone: Any, facts: Facts) -> Built:
    call, settings = Call(), _settings(facts)
    centres = None
    if layer is Mocle:
        points = clusters.represent(backbone.get_input_embeddings().weight, facts.prompts)
        centres = clusters.k_means(points, settings.clusters, facts.seed)
    rows = table(settings.tasks if centres is None else len(centres))
    insert(backbone, ATTENTION, lambda module, _: layer(module, settings, call, rows))
    return Built(Mixture(backbone, call, 0.0), centres)


# Learning rates by kind of parameter, not swept: low-rank matrices, LiME's vectors, vectors alone, a prompt.
_MATRICES, _LIME_VECTORS, _VECTORS, _PROMPT = 2e-3, 5e-3, 1e-2, 3e-2


def _all() -> dict[str, Method]:
    found = {}
    for base in VARIANTS:
        title = f"LiME-{_TITLES.get(base, base)}"
        found[f"lime-{base.replace('_', '-')}"] = Method(
            title, "LiME", partial(_lime, base, ("expert",)), _MATRICES, _LIME_VECTORS
        )
    found["lime-lora-film"] = Method(
        "LiME-LoRA, gain and shift",
        "LiME",
        partial(_lime, "lora", ("expert", "gain", "shift")),
        _MATRICES,
        _LIME_VECTORS,
    )
    mixtures: list[tuple[str, str, Callable[[Any, Facts], Built]]] = [
        ("moelora", "MoELoRA", partial(_mixture, MoeLora)),
        ("moelora-fa", "MoELoRA-FA", partial(_mixture, MoeLoraFA)),
        ("moedora", "MoEDoRA", partial(_mixture, MoeDora)),
        ("mixlora", "MixLoRA", _mixlora),
        ("hydralora", "HydraLoRA", partial(_mixture, HydraLora)),
        ("mola", "MoLA", _mola),
        ("more", "MoRE", partial(_by_row, More)),
        ("mocle", "MoCLE", partial(_by_row, Mocle)),
    ]
    for name, title, build in mixtures:
        found[name] = Method(title, "mixture", build, _MATRICES)
    peft: list[tuple[str, str, str, int, float]] = [
        ("lora", "LoRA", "lora", RANK, _MATRICES),
        ("lora-r8", "LoRA, r = 8", "lora", 8, _MATRICES),
        ("dora", "DoRA", "dora", RANK, _MATRICES),
        ("ia3", "IA3", "ia3", RANK, _VECTORS),
        ("vera", "VeRA", "vera", RANK, _VECTORS),
        ("road", "RoAd", "road", RANK, _VECTORS),
        ("prompt-tuning", "Prompt tuning", "prompt", RANK, _PROMPT),
    ]
    for name, title, kind, rank, rate in peft:
        found[name] = Method(title, "PEFT", partial(_plain, kind, rank), rate)
    return found


METHODS: Mapping[str, Method] = _all()
#: Methods that run with three seeds.
REPEATED = ("lime-lora", "moelora", "lora", "hydralora")
#: The next methods in order: each LiME-X beside its MoE-X.
_PAIRED = ("lime-lora-fa", "moelora-fa", "lime-dora", "moedora", "lora-r8", "lime-slicefine", "mola", "ia3")


def plan() -> list[tuple[str, int]]:
    """All runs (method, seed), the most important first."""
    first = dict.fromkeys([*REPEATED, *_PAIRED, *METHODS])
    return [(name, 0) for name in first] + [(name, seed) for seed in (1, 2) for name in REPEATED]
