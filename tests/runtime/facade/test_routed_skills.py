"""The right skill by itself: what is chosen, that it is read once, and what calls and receipts say."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lime_edge.errors import ConfigError, ModelError, StoppedError
from lime_edge.runtime import Runtime
from lime_edge.runtime.decoding.kv_cache import Cache
from tests.support import route_case, runtime_models
from tests.support.route_case import OTHERS, WORDS, routable, runtime, skill, texts


@pytest.fixture(scope="module")
def made() -> Runtime:
    return runtime("legal", "shell", "music")


def test_requests_go_to_the_skill_of_their_kind(made: Runtime) -> None:
    asked = {name: [made.route(text) for text in texts(WORDS[name], 20, seed=9)] for name in WORDS}
    right = [next(iter(route.probabilities)) == name for name in WORDS for route in asked[name]]
    assert np.mean(right) > 0.9
    kept = [route.skill is not None for routes in asked.values() for route in routes]
    assert np.mean(kept) > 0.6
    foreign = [made.route(text).skill is None for words in OTHERS for text in texts(words, 4, seed=9)]
    assert np.mean(foreign) > 0.8
    for route in asked["legal"]:
        assert sum(route.probabilities.values()) + route.none == pytest.approx(1)
        assert [*route.probabilities.values()] == sorted(route.probabilities.values(), reverse=True)
        assert min(route.read_seconds, route.choose_seconds) > 0


def test_int4_chooses_with_the_same_centroids() -> None:
    four, full = runtime("legal", "shell", precision="int4"), runtime("legal", "shell")
    asked = [text for name in ("legal", "shell") for text in texts(WORDS[name], 15, seed=4)]
    same = [
        next(iter(one.route(text).probabilities)) == next(iter(other.route(text).probabilities))
        for one, other in [(four, full)]
        for text in asked
    ]
    assert np.mean(same) > 0.8


@pytest.mark.parametrize("activation", ["always", "response"])
def test_auto_answers_as_the_chosen_skill_does(activation: str) -> None:
    made = runtime("legal", "shell", activation=activation)
    foreign = [texts(words, 1, 5)[0] for words in OTHERS[:3]]
    for text in (*texts(WORDS["legal"], 3, 5), *texts(WORDS["shell"], 3, 5), *foreign):
        route = made.route(text)
        expected = made.generate(text, route.skill, max_new_tokens=6)
        found = made.generate(text, "auto", max_new_tokens=6)
        assert found.token_ids == expected.token_ids
        said = found.receipt["route"]
        assert said["probabilities"] == pytest.approx(route.probabilities, abs=1e-6)
        assert {part["name"] for part in found.receipt["skills"]} == set(_names(route.skill))
        stream = made.stream(text, "auto", max_new_tokens=6)
        assert "".join(stream) == found.text
        assert stream.generation.receipt["route"]["none"] == pytest.approx(route.none, abs=1e-6)
        chosen = made.choose(text, ["yes", "no"], "auto")
        assert chosen.scores == made.choose(text, ["yes", "no"], route.skill).scores
        assert chosen.receipt["route"]["why"] == route.why


def test_use_skill_auto_is_the_default_of_calls(made: Runtime) -> None:
    text = texts(WORDS["legal"], 1, 5)[0]
    made.use_skill("auto")
    try:
        active = made.active_skill
        assert active == "auto"
        assert "route" in made.generate(text, max_new_tokens=2).receipt
        assert made.generate(text, None, max_new_tokens=2).receipt.get("route") is None
        with made.disable_skill():
            disabled = made.active_skill
            assert disabled is None
            assert made.generate(text, max_new_tokens=2).receipt.get("route") is None
        rows = made.generate([text, "one two one two two"], ["auto", "shell"], max_new_tokens=2)
        assert [row.receipt.get("route") is not None for row in rows] == [True, False]
        made.load_skill(skill(routable(), "legal", version="2.0.0"), replace=True)  # the active one is none of them
        assert made.active_skill == "auto"
    finally:
        made.use_skill(None)


@pytest.mark.parametrize(("activation", "again"), [("response", False), ("always", True)])
def test_a_request_is_read_once(activation: str, again: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    made, read = runtime("legal", activation=activation, prefix_cache=0), [0]
    run = Cache._run

    def counting(self: Cache, start: int, stop: int, ids: Any, *rest: Any) -> Any:
        read[0] += ids.size
        return run(self, start, stop, ids, *rest)

    monkeypatch.setattr(Cache, "_run", counting)
    text = texts(WORDS["legal"], 1, 5)[0]
    size = len(made.tokenize(text, None))
    made.route("Hello")  # the first choice also reads the texts of the statistics
    read[0] = 0
    route = made.route(text)
    assert read == [size]
    read[0] = 0
    found = made.generate(text, "auto", max_new_tokens=1)
    header = len(made._text._header)
    if route.skill is None:
        pytest.fail("the example is one that the skill is chosen for")
    assert read == [2 * size if again else size + max(2, header)]
    assert found.timings.reused_tokens == (0 if again else size - max(2, header))


def test_a_model_without_statistics_says_what_to_do() -> None:
    made = runtime_models.runtime(runtime_models.exported(), "legal")
    with pytest.raises(ConfigError, match=r"exported without statistics of states.*lime-edge route"):
        made.generate("Hello", "auto")
    made.use_skill("auto")
    with pytest.raises(ConfigError, match="exported without statistics"):
        made.generate("Hello")


def test_skills_without_centroids_are_never_chosen() -> None:
    made = runtime("legal")
    made.load_skill(runtime_models.skill(routable(), "plain"))
    assert [*made.route("law lease law lease law").probabilities] == ["legal"]
    made.unload_skill("legal")
    route = made.route("law lease law lease law")
    assert (route.skill, route.none, route.why) == (None, 1.0, "no loaded skill has centroids of this model's states")


def test_the_name_auto_is_taken() -> None:
    made = runtime()
    with pytest.raises(ConfigError, match="the name 'auto' cannot be used"):
        made.load_skill(skill(routable(), "legal"), "auto")


def test_other_statistics_than_those_of_the_export_are_refused(tmp_path: Path) -> None:
    copied = shutil.copytree(routable(), tmp_path / "model")
    data = bytearray((copied / "route.safetensors").read_bytes())
    data[-1] ^= 1
    (copied / "route.safetensors").write_bytes(data)
    with pytest.raises(ModelError, match=r"route.safetensors is not the file of lime.json"):
        Runtime.load(copied, threads=1).route("Hello")
    (copied / "route.safetensors").unlink()
    with pytest.raises(ModelError, match=r"route.safetensors cannot be read"):
        Runtime.load(copied, threads=1).route("Hello")


def test_a_skill_that_is_unloaded_meanwhile_is_replaced_by_what_is_left(
    made: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = next(text for text in texts(WORDS["music"], 20, 3) if made.route(text).skill == "music")
    route = Runtime._route

    def slow(self: Runtime, *arguments: Any) -> Any:
        found = route(self, *arguments)
        self.unload_skill("music")
        return found

    monkeypatch.setattr(Runtime, "_route", slow)
    found = made.generate(text, "auto", max_new_tokens=2)
    assert "music" not in [part["name"] for part in found.receipt["skills"]]
    assert found.receipt["route"]["why"] == "what was likelier cannot be used now"


def test_stopping_while_it_is_read() -> None:
    made, event = runtime("legal"), threading.Event()
    event.set()
    assert made.generate("law lease law", "auto", cancel=event).finish_reason == "cancelled"
    with pytest.raises(StoppedError, match="was cancelled"):
        made.route("law lease law", cancel=event)


def _names(chosen: Any) -> list[str]:
    return [] if chosen is None else [chosen] if isinstance(chosen, str) else [*chosen]


def test_the_statistics_are_those_of_the_fit() -> None:
    assert route_case.statistics()[0].layer == 1
