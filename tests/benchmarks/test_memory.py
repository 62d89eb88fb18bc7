"""switch.py and memory.py on a tiny model: what they count, not what they time."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from benchmarks.harness.latency import Latency
from benchmarks.harness.skill_copies import write_copies
from benchmarks.speed import memory, switch, trust
from lime_edge.errors import SkillTrustError
from lime_edge.skills.package import read_skill
from lime_edge.trust.policy import TrustPolicy
from lime_edge.trust.signature_file import signature_path
from tests.support.runtime_models import exported, skill


def ran(command: click.Command, tmp_path: Path, *options: str) -> dict[str, Any]:
    """The figures of a run, from its JSON."""
    model, found = exported(), tmp_path / "figures.json"
    file = skill(model, "legal", activation="always")
    arguments = [str(model), str(file), "--work", str(tmp_path), "--json", str(found), *options]
    done = CliRunner().invoke(command, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    document: dict[str, Any] = json.loads(found.read_text("utf-8"))
    return document


def test_percentiles() -> None:
    found = Latency.of("us", "call", 7, [1e-6 * number for number in range(1, 102)])
    assert (found.calls, found.loaded) == (101, 7)
    assert [found.p50, found.p90, found.p99, found.highest] == pytest.approx([51, 91, 100, 101])


def test_copies_are_different_skills_made_once(tmp_path: Path) -> None:
    source = skill(exported(), "legal")
    paths = write_copies(source, tmp_path, 3)
    made = [path.stat().st_mtime_ns for path in paths]
    assert write_copies(source, tmp_path, 3) == paths
    assert [path.stat().st_mtime_ns for path in paths] == made
    skills = [read_skill(path) for path in (source, *paths)]
    assert len({one.digest for one in skills}) == len({one.name for one in skills}) == 4
    for one in skills[1:]:
        assert (one.kinds, one.dtype) == (skills[0].kinds, skills[0].dtype)
        assert all(one.manifest.bounds[kind] <= bound for kind, bound in skills[0].manifest.bounds.items())
        assert all((one.tensors[name] != array).any() for name, array in skills[0].tensors.items())


def test_switching_and_loading_are_measured(tmp_path: Path) -> None:
    options = ["--loaded", "3,1", "--loads", "2", "--switches", "8", "--rivals", "genai", "--adapters", "1,2"]
    found = ran(switch.main, tmp_path, *options)
    assert found["benchmark"] == "switch"
    figures = {(one["engine"].split()[0], one["call"], one["loaded"]): one["calls"] for one in found["figures"]}
    ours = {("use_skill", 8), ("load_skill", 2), ("unload_skill", 2)}
    assert figures == {
        **{("lime-edge", call, loaded): calls for loaded in (1, 3) for call, calls in ours},
        **{("ORT-GenAI", "Adapters.load", loaded): 1 for loaded in (1, 2)},
        **{("ORT-GenAI", "new Generator, set_active_adapter", loaded): 200 for loaded in (1, 2)},
    }


def test_loading_signed_skills_is_measured(tmp_path: Path) -> None:
    found = ran(trust.main, tmp_path, "--loaded", "1,2", "--loads", "2")
    calls = {(one["call"], one["loaded"]): one["calls"] for one in found["figures"]}
    assert calls == {(way, count): 2 for way in ("load_skill", "load_skill, signed") for count in (1, 2)}
    assert list(found["ratios"]) == ["1", "2"]
    policy = TrustPolicy.read(tmp_path / "policy.toml")
    path = tmp_path / "copies" / "copy-0.lime"
    with pytest.raises(SkillTrustError, match="there is no signature"):
        policy.admit(path.read_bytes(), None, path)
    signer = policy.admit(path.read_bytes(), signature_path(path).read_bytes(), path).signer
    assert signer is not None
    assert signer.publisher == "acme"


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_and_starts_are_measured(tmp_path: Path) -> None:
    found = ran(memory.main, tmp_path, "--loaded", "1,3", "--starts", "1", "--mapped")
    assert [one["skills"] for one in found["memory"]["loaded"]] == [1, 3]
    assert all(0 < one["private"] < one["all"] for one in found["memory"]["loaded"])
    numbers = 2 * (256 + 256 + 128)  # two layers; of q and o every kind, of up the gain, padded
    assert found["memory"]["bytes_of_a_skill_in_the_bank"] == 3 * numbers * 4  # of three experts
    stages = found["starts"]["until"]
    assert list(stages) == ["Python", "import", "Runtime.load", "load_skill", "first token"]
    for how in ("cold", "warm"):
        times = [stage[how]["median"] for stage in stages.values()]
        assert times == sorted(times)
    assert (tmp_path / "mapped" / "mapped.json").is_file()


@pytest.mark.parametrize(
    ("command", "options", "message"),
    [
        (switch.main, ["--rivals", "ours"], "no rival ours; expected some of peft,genai,llama|peft, genai, llama"),
        (switch.main, ["--rivals", "llama", "--loads", "1", "--switches", "1", "--loaded", "1"], "needs --gguf"),
        (memory.main, ["--loaded", "0"], "expected whole numbers of 1 or more"),
    ],
)
def test_what_cannot_be_measured_is_said(
    tmp_path: Path, command: click.Command, options: list[str], message: str
) -> None:
    model = exported()
    done = CliRunner().invoke(command, [str(model), str(skill(model, "legal")), "--work", str(tmp_path), *options])
    assert done.exit_code == 2
    assert any(part in " ".join(done.output.split()) for part in message.split("|"))
