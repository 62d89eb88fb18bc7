"""Updates of loaded skills: generations, compare-and-swap, failed updates, and updates under load."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NoReturn

import pytest

from lime_edge.errors import (
    ConfigError,
    LimeError,
    SkillConflictError,
    SkillError,
    SkillFormatError,
    SkillMismatchError,
    SkillProofError,
    UnknownSkillError,
)
from lime_edge.runtime import Runtime
from lime_edge.runtime.memory import reserve
from lime_edge.runtime.skills import bank, registry
from tests.support.runtime_models import answer_ids, exported, makers, runtime, skill


@pytest.fixture
def made() -> Runtime:
    return runtime(exported(), "legal", "brief")


def generations(made: Runtime) -> dict[str, int]:
    return {info.name: info.generation for info in made.skills()}


def other(name: str = "legal", seed: int = 9, **manifest: Any) -> Path:
    return skill(exported(), name, seed=seed, **manifest)


def test_generations_grow_and_are_never_used_again(made: Runtime) -> None:
    assert generations(made) == {"legal": 1, "brief": 2}
    assert made.load_skill(other(), replace=True).generation == 3
    made.unload_skill("brief")
    assert made.load_skill(skill(exported(), "brief")).generation == 4
    with pytest.raises(SkillFormatError):
        made.load_skill("/none")
    with pytest.raises(ConfigError):
        made.load_skill(other())
    assert made.load_skill(other(), "third").generation == 5
    assert generations(made) == {"legal": 3, "brief": 4, "third": 5}


def test_compare_and_swap(made: Runtime) -> None:
    info = made.load_skill(other(), replace=True, expected_generation=1)
    assert info.generation == 3
    answer = answer_ids(made, skill="legal")
    cases: list[tuple[dict[str, Any], type[LimeError], str]] = [
        ({"replace": True, "expected_generation": 1}, SkillConflictError, "is at generation 3; expected gen"),
        ({"replace": True, "expected_generation": 0}, SkillConflictError, "at generation 3; expected none to"),
        ({"expected_generation": 0}, SkillConflictError, "'legal' is at generation 3; expected none"),
        ({"expected_generation": 3}, ConfigError, "pass replace=True"),
        ({"name": "x", "expected_generation": 3}, SkillConflictError, "'x' is not loaded; expected generation 3"),
        ({"expected_generation": -1}, ConfigError, "expected_generation is -1"),
        ({"expected_generation": True}, ConfigError, "expected_generation is True"),
        ({"expected_generation": "3"}, ConfigError, "expected_generation is '3'"),
    ]
    for arguments, error, message in cases:
        with pytest.raises(error, match=message):
            made.load_skill(other(seed=8), **arguments)
    assert (generations(made), answer_ids(made, skill="legal")) == ({"legal": 3, "brief": 2}, answer)
    assert made.load_skill(other(), "new", expected_generation=0).generation == 4


def test_unloading_by_generation(made: Runtime) -> None:
    with pytest.raises(SkillConflictError, match="'legal' is at generation 1; expected generation 2"):
        made.unload_skill("legal", expected_generation=2)
    with pytest.raises(UnknownSkillError):
        made.unload_skill("nope", expected_generation=1)
    made.unload_skill("legal", expected_generation=1)
    assert generations(made) == {"brief": 2}


def test_the_conflict_is_judged_at_the_switch(made: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    """If another update finishes while this one is being checked, the other wins and this one changes nothing."""
    packed, rival = registry.Registry.add, other(seed=7)

    def slow(self: registry.Registry, *arguments: Any) -> Any:
        monkeypatch.setattr(registry.Registry, "add", packed)
        made.load_skill(rival, replace=True, expected_generation=1)
        return packed(self, *arguments)

    monkeypatch.setattr(registry.Registry, "add", slow)
    with pytest.raises(SkillConflictError, match="is at generation 3; expected generation 1"):
        made.load_skill(other(), replace=True, expected_generation=1)
    assert generations(made) == {"legal": 3, "brief": 2}
    assert made.skills()[0].path == rival
    assert made._bank.in_use == 3


def test_of_many_updates_that_expect_the_same_generation_one_wins(made: Runtime) -> None:
    paths = [other(seed=seed) for seed in range(8)]

    def update(path: Path) -> int:
        try:
            return made.load_skill(path, replace=True, expected_generation=1).generation
        except SkillConflictError:
            return 0

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(update, paths)) == [0] * 7 + [3]
    assert made._bank.in_use == 3


@pytest.mark.parametrize("spec", ["legal", {"legal": 0.5, "brief": 0.5}])
def test_what_is_active_follows(made: Runtime, spec: Any) -> None:
    made.use_skill(spec)
    before = made.generate("Hello", max_new_tokens=6)
    path = other()
    made.load_skill(path, replace=True)
    after = made.generate("Hello", max_new_tokens=6)
    assert [one["generation"] for one in before.receipt["skills"]] == [1, 2][: len(before.receipt["skills"])]
    assert [one["generation"] for one in after.receipt["skills"]] == [3, 2][: len(before.receipt["skills"])]
    assert after.token_ids != before.token_ids
    alone = runtime(exported(), "brief")
    alone.load_skill(path)
    assert after.token_ids == answer_ids(alone, skill=spec)


def test_a_row_given_to_another_skill_is_not_taken_for_what_a_running_blend_was_made_of(made: Runtime) -> None:
    """A running blend holds its own row but not those of its parts, so another skill may reuse them."""
    spec = {"legal": 0.5, "brief": 0.5}
    stream = made.stream("Hello", spec, max_new_tokens=6)
    pieces, old = [next(stream)], made.generate("Hello", spec, max_new_tokens=6)
    row = made._registry._skills["legal"].row
    made.unload_skill("legal")
    path = other()
    made.load_skill(path)
    assert made._registry._skills["legal"].row == row
    new = made.generate("Hello", spec, max_new_tokens=6)
    alone = runtime(exported(), "brief")
    alone.load_skill(path)
    assert new.token_ids == answer_ids(alone, skill=spec) != old.token_ids
    assert [one["generation"] for one in new.receipt["skills"]] == [3, 2]
    assert "".join([*pieces, *stream]) == old.text
    assert makers(stream.generation.receipt) == makers(old.receipt)


def refusing(error: type[BaseException]) -> Callable[..., NoReturn]:
    def refuse(*_: Any, **__: Any) -> NoReturn:
        raise error

    return refuse


#: What fails during an update, how to make it fail, and the error that the caller gets.
FAILURES: list[tuple[str, Callable[[pytest.MonkeyPatch, Path], Any], dict[str, Any], type[BaseException]]] = [
    ("read", lambda patch, path: path.unlink(), {}, SkillFormatError),
    ("cut short", lambda patch, path: path.write_bytes(path.read_bytes()[:-1]), {}, SkillFormatError),
    ("adapter", lambda patch, path: path.write_bytes(other(adapter="c" * 64).read_bytes()), {}, SkillMismatchError),
    ("limits", lambda patch, path: path.write_bytes(other(size=9.0).read_bytes()), {}, SkillMismatchError),
    ("conflict", lambda patch, path: None, {"expected_generation": 7}, SkillConflictError),
    ("no proof", lambda patch, path: None, {"prove": True}, SkillProofError),
    ("blend", lambda patch, path: path.write_bytes(other(activation="always").read_bytes()), {}, ConfigError),
    ("packing", lambda patch, path: patch.setattr(bank.Hold, "add", refusing(MemoryError)), {}, MemoryError),
    ("switching", lambda patch, path: patch.setattr(registry.Registry, "_blend", refusing(KeyError)), {}, KeyError),
    ("stopped", lambda patch, path: patch.setattr(registry.Registry, "_lease", refusing(SystemExit)), {}, SystemExit),
]


@pytest.mark.parametrize(("what", "breaking", "arguments", "error"), FAILURES, ids=[case[0] for case in FAILURES])
def test_a_failed_update_changes_nothing(
    made: Runtime,
    monkeypatch: pytest.MonkeyPatch,
    what: str,
    breaking: Callable[[pytest.MonkeyPatch, Path], Any],
    arguments: dict[str, Any],
    error: type[BaseException],
) -> None:
    spec = {"legal": 0.5, "brief": 0.5}
    made.use_skill(spec)
    before, rows, answers = made.skills(), made._bank.in_use, [answer_ids(made, skill=s) for s in ("legal", spec)]
    stream = made.stream("Hello", "legal", max_new_tokens=6)
    pieces, text = [next(stream)], made.generate("Hello", "legal", max_new_tokens=6).text
    path = other()
    with monkeypatch.context() as patch:
        breaking(patch, path)
        with pytest.raises(error):
            made.load_skill(path, replace=True, **arguments)
    assert (made.skills(), made._bank.in_use, made.active_skill) == (before, rows, spec)
    assert [answer_ids(made, skill="legal"), answer_ids(made)] == answers
    assert "".join([*pieces, *stream]) == text
    assert made.load_skill(other(), replace=True).generation == 3  # the next update succeeds


def test_a_bank_that_cannot_grow_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reserve, "_rationed", lambda: True)
    made = runtime(exported(), "legal", "brief")
    made.use_skill("legal")
    made.load_skill(skill(exported(), "third"))  # fills all four rows
    before, answer = made.skills(), answer_ids(made)
    monkeypatch.setattr(bank, "Reserve", refusing(MemoryError))
    for arguments in ({"name": "fourth"}, {"replace": True}):
        with pytest.raises(SkillError, match="no memory for more than 3 skills and blends: unload some skills"):
            made.load_skill(other(), **arguments)
    with pytest.raises(SkillError, match="no memory"):
        made.use_skill({"legal": 0.5, "brief": 0.5})
    assert (made.skills(), made.active_skill, answer_ids(made)) == (before, "legal", answer)


UPDATES, VERSIONS, THREADS = 200, 3, 8
#: Requests of the eight threads: one skill, the active one, a blend, a skill per row, a stream, choices.
ASKED: list[Any] = ["legal", "active", {"legal": 0.5, "brief": 0.5}, ["legal", None, "brief"], "stream", "choose"]


def test_every_answer_under_updates_belongs_to_one_generation() -> None:
    """Eight threads answer during 200 updates; each answer equals that of its receipt's generations alone."""
    paths = [[skill(exported(), name, seed=seed) for seed in range(VERSIONS)] for name in ("legal", "brief")]
    made = runtime(exported())
    loaded = {made.load_skill(files[0]).generation: files[0] for files in paths}
    made.use_skill("legal")
    done, answered = threading.Event(), threading.Semaphore(0)
    found: list[tuple[Any, Any]] = []
    overtaken: list[bool] = []

    def ask(thread: int) -> None:
        number = thread
        while not done.is_set():
            found.append(_asked(made, ASKED[number % len(ASKED)]))
            overtaken.append(_is_overtaken(made, found[-1][1]))
            answered.release()
            number += 1

    with ThreadPoolExecutor(THREADS) as pool:
        asking = [pool.submit(ask, thread) for thread in range(THREADS)]
        try:
            for number in range(UPDATES):
                path = paths[number % 2][number // 2 % VERSIONS]
                loaded[made.load_skill(path, replace=True).generation] = path
                assert answered.acquire(timeout=60)  # updates and answers roughly alternate
        finally:
            done.set()
        for one in asking:
            one.result(timeout=60)
    assert len(loaded) == UPDATES + 2
    assert made._bank.in_use == 3
    assert any(overtaken)  # some answers finished after their skill was replaced
    _compare_with_alone(found, loaded)


def _is_overtaken(made: Runtime, receipt: Any) -> bool:
    """Whether the generation that answered has been replaced since."""
    now = generations(made)
    receipts = receipt if isinstance(receipt, list) else [receipt]
    return any(part["generation"] != now[part["name"]] for one in receipts for part in one["skills"])


def _asked(made: Runtime, what: Any) -> tuple[Any, Any]:
    """An answer and its receipt; for several rows, lists of both."""
    if what == "stream":
        stream = made.stream("Hello", "legal", max_new_tokens=6)
        text = "".join(stream)
        assert text == stream.generation.text
        return stream.generation.token_ids, stream.generation.receipt
    if what == "choose":
        choice = made.choose("Hello", ["yes", "no"], "brief")
        return choice.scores, choice.receipt
    if isinstance(what, list):
        rows = made.generate("Hello", what, max_new_tokens=6)
        return [row.token_ids for row in rows], [row.receipt for row in rows]
    answer = made.generate("Hello", max_new_tokens=6, **({} if what == "active" else {"skill": what}))
    return answer.token_ids, answer.receipt


def _compare_with_alone(found: list[tuple[Any, Any]], loaded: dict[int, Path]) -> None:
    """Compare each answer with that of a runtime that never saw an update."""
    alone, seen = runtime(exported()), set()
    names = {path: alone.load_skill(path, name=str(path)).name for path in set(loaded.values())}
    wanted: dict[Any, Any] = {}
    for answer, receipt in found:
        many = isinstance(receipt, list)
        for tokens, one in zip(answer if many else [answer], receipt if many else [receipt], strict=True):
            spec = {names[loaded[part["generation"]]]: part["weight"] for part in one["skills"]} or None
            key = (isinstance(tokens, dict), tuple(spec.items()) if spec else None)
            if key not in wanted:
                wanted[key] = (
                    alone.choose("Hello", ["yes", "no"], spec).scores if key[0] else answer_ids(alone, skill=spec)
                )
            assert tokens == wanted[key], (one, spec)
            seen.add(key)
            assert all(alone_digest(alone, loaded[part["generation"]]) == part["digest"] for part in one["skills"])
    answers = [wanted[key] for key in wanted if not key[0]]
    assert len(set(answers)) == len(answers)  # otherwise generations could not be distinguished
    assert len(seen) > 2 * VERSIONS


def alone_digest(made: Runtime, path: Path) -> str:
    return next(info.digest for info in made.skills() if info.path == path)
