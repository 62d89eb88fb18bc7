"""Proves a skill when it is loaded: runs its golden prompts on this graph.

A valid package with matching digests can still have no effect, for instance because the graph is damaged or lacks the
adapter. The golden prompts therefore run with the base and with the skill, and the results are compared with the
author's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from lime_edge.errors import SkillProofError
from lime_edge.runtime.model.session import Graph
from lime_edge.runtime.skills.bank import Array
from lime_edge.runtime.skills.registry import AppliedSkill
from lime_edge.runtime.text.prompts import Text

from .kv_cache import Cache, Ids
from .loop import skill_rows, with_prefix

Float64 = npt.NDArray[np.float64]

#: fp32: maximum difference of a logit from the author's. Kernels that sum in another order differ by 1e-4; another
#: backbone or adapter differs by whole logits.
LOGIT_TOLERANCE = 2e-2
#: Other precisions may change the base's logits by more than a skill does. So only the change made by the skill is
#: compared: its direction over the golden tokens, and its size.
LEAST_COSINE = 0.8
SIZE_RANGE = (0.5, 2.0)
#: A skill that changes no golden logit by more than this has no effect.
LEAST_CHANGE = 1e-3


def prove(
    graph: Graph, bank: Array, text: Text, name: str, golden: Sequence[Mapping[str, Any]], applied: AppliedSkill
) -> None:
    """Run the golden prompts and compare the results with the author's.

    Args:
        graph, bank, text: The model and the vectors to run.
        name: The skill's name, for messages.
        golden: The golden prompts of the manifest.
        applied: The skill in its bank row.

    Raises:
        SkillProofError: There are no golden prompts, or names each one that does not reproduce, and why.
    """
    if not golden:
        raise SkillProofError(f"skill {name!r} has no golden prompts: learn it again, or pass prove=False")
    faults = [
        f"golden prompt {number}: {fault}"
        for number, entry in enumerate(golden)
        for fault in _faults(graph, bank, text, entry, applied)
    ]
    if faults:
        raise SkillProofError(f"skill {name!r} does not reproduce what its author measured: it was not loaded", faults)


def _faults(graph: Graph, bank: Array, text: Text, entry: Mapping[str, Any], applied: AppliedSkill) -> Iterator[str]:
    plain = text.known(entry["prompt_ids"])
    tokens = with_prefix(plain, applied, graph)
    top, answer = np.array(entry["top_ids"]), list(entry["answer_ids"])
    size = len(tokens.ids) + len(answer)
    highest = max(int(plain.ids.max()), int(top.max()), max(answer))
    if size > graph.directory.context_length or highest >= graph.vocabulary:
        context = graph.directory.context_length
        yield f"{size} tokens with ids up to {highest}; the model has room for {context} and {graph.vocabulary} ids"
        return
    cache = Cache(graph, bank, 1, size)
    base = cache.prefill(0, plain.ids, np.zeros(len(plain.ids), np.int64))[0][top].astype(np.float64)
    logits = cache.prefill(0, tokens.ids, skill_rows(tokens, applied))[0]
    skill = logits[top].astype(np.float64)
    wanted_base, wanted_skill = np.array(entry["base_logits"]), np.array(entry["skill_logits"])
    if np.abs(skill - base).max() <= LEAST_CHANGE:
        yield f"the skill changes no logit by more than {LEAST_CHANGE:g} on this graph"
    elif graph.directory.contract.precision == "fp32":
        yield from _exact("base", base, wanted_base)
        yield from _exact("skill", skill, wanted_skill)
        if (found := _greedy(cache, logits, len(answer), applied.skill_id)) != answer:
            yield f"answers {found}; expected {answer}"
    else:
        yield from _alike(skill - base, wanted_skill - wanted_base)


def _exact(what: str, found: Float64, wanted: Float64) -> Iterator[str]:
    off = float(np.abs(found - wanted).max())
    if not off <= LOGIT_TOLERANCE:
        yield f"the {what}'s logits differ by {off:.3g}; expected at most {LOGIT_TOLERANCE:g} in fp32"


def _alike(found: Float64, wanted: Float64) -> Iterator[str]:
    """Compare the change of the logits by the skill with the author's."""
    size, expected = float(np.linalg.norm(found)), float(np.linalg.norm(wanted))
    if not expected > 0:
        yield "in its author's measurement the skill changes nothing"
        return
    cosine = float(found @ wanted) / (size * expected)
    if not cosine >= LEAST_COSINE:
        yield f"the change has another direction: cosine {cosine:.2f}; expected at least {LEAST_COSINE:g}"
    if not SIZE_RANGE[0] <= size / expected <= SIZE_RANGE[1]:
        yield f"the change is {size / expected:.2f} times its author's; expected {SIZE_RANGE[0]:g} to {SIZE_RANGE[1]:g}"


def _greedy(cache: Cache, logits: Array, count: int, row: int) -> list[int]:
    """Decode `count` tokens greedily, beginning with `logits` [V]."""
    found = [int(logits.argmax())]
    while len(found) < count:
        ids: Ids = np.array(found[-1:])
        found.append(int(cache.step(ids, np.array([row]))[0].argmax()))
    return found
