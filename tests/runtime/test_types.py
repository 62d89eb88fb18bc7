"""Facts that results compute: decoding speed, and what a package says about a skill."""

from __future__ import annotations

from lime_edge.runtime.types import SkillInfo, Timings
from lime_edge.skills.package import read_skill
from tests.support.runtime_models import exported, skill


def test_tokens_per_second_counts_the_tokens_after_the_first() -> None:
    assert Timings(9.0, 2.0, 5, 0, new_tokens=11).tokens_per_second == 5
    assert Timings(9.0, 0.0, 5, 0, new_tokens=1).tokens_per_second == 0


def test_the_facts_of_a_package() -> None:
    package = read_skill(skill(exported(), "legal", author="me", version="2.1.0", activation="always"))
    info = SkillInfo.of(package, "mine", proved=True)
    assert (info.name, info.author, info.version, info.activation) == ("mine", "me", "2.1.0", "always")
    assert (info.generation, info.proved, info.signer) == (0, True, None)
    assert (info.digest, info.size) == (package.manifest.digest, package.path.stat().st_size)
