"""Skills without one of their parts."""

from __future__ import annotations

import numpy as np

from benchmarks.skill_quality.parts import VARIANTS, variant
from lime_edge.contract.vector_kinds import NEUTRAL
from lime_edge.skills.vector_codec import kind_of

_NAMES = ("expert.layers.0.self_attn.o_proj", "gain.layers.0.self_attn.o_proj", "gain.layers.0.mlp.up_proj")
_VECTORS = {name: np.full((1, 32), 5, np.float32) for name in _NAMES}


def _neutral(name: str) -> set[str]:
    """Vectors that a variant makes neutral."""
    made = variant(_VECTORS, name)
    assert made.keys() == _VECTORS.keys()
    return {vector for vector, values in made.items() if (values == NEUTRAL[kind_of(vector)]).all()}


def test_a_variant_makes_one_part_neutral() -> None:
    expert, gain, up = _NAMES
    wanted = {"no expert": {expert}, "no gain": {gain, up}, "no o_proj": {expert, gain}, "no up_proj": {up}}
    wanted |= {"base": set(_NAMES), "whole": set(), "4 bits": set(), "no shift": set()}
    assert {name: _neutral(name) for name in VARIANTS} == wanted
