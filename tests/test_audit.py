"""`lime-edge audit`: every statistic against a case made by hand, the search against planted triggers, the command."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import tokenizers

from lime_edge import (
    audit_drift,
    audit_neighbours,
    audit_page,
    audit_search,
    audit_spread,
    audit_vectors,
    audit_verdict,
)
from lime_edge.audit import packages
from lime_edge.audit_contexts import Context, Looker, contexts_of, ending, vocabulary
from lime_edge.audit_search import Found, Peaks, Settings
from lime_edge.audit_spread import Finding
from lime_edge.errors import DataError
from lime_edge.package import Skill, read_skill
from lime_edge.runtime.probe import Probe, probing

from .cli_models import exported as cli_model
from .cli_models import facts, lime, write_rows
from .runtime_models import PROMPTS, Plain, exported, runtime, skill

# -- vectors ---------------------------------------------------------------------------------------


def test_robust_deviations() -> None:
    known = [0.8, 0.9, 1.0, 1.1, 1.2]  # median 1, median deviation 0.1
    assert audit_vectors.robust_z(2.0, known) == pytest.approx(1 / 0.14826)
    assert audit_vectors.robust_z(0.0, known) == pytest.approx(-1 / 0.14826)
    assert audit_vectors.robust_z(1.5, [1.0, 1.0, 1.0]) == pytest.approx(5)  # a tenth of the median at least
    assert audit_vectors.robust_z(1.0, []) is None


@pytest.fixture(scope="module")
def known() -> list[Skill]:
    return [read_skill(skill(exported(), f"known-{i}")) for i in range(10)]


def changed(one: Skill, name: str, by: Any) -> Skill:
    return dataclasses.replace(one, tensors={**one.tensors, name: by(one.tensors[name].copy())})


def test_vectors_out_of_line_are_named(known: list[Skill]) -> None:
    sound = read_skill(skill(exported(), "new"))
    assert max(cell.worst for cell in audit_vectors.cells(sound, known)) < audit_verdict.VECTOR_Z
    name = sorted(sound.tensors)[3]
    kind, _, module = name.partition(".")

    def peaked(array: Any) -> Any:
        array[..., 0] = 40
        return array

    for by, figure in ((lambda array: 5 * array, "rms_z"), (peaked, "peak_z")):
        worst = audit_vectors.summary(changed(sound, name, by), known)["worst"][0]
        assert (worst["kind"], worst["module"]) == (kind, module)
        assert worst[figure] > audit_verdict.VECTOR_Z
    assert worst["layer"] == int(module.split(".")[2])


def test_what_there_is_to_compare_with(known: list[Skill]) -> None:
    one = known[0]
    few = audit_vectors.summary(one, known[1:3])
    assert (few["enough"], len(few["known"])) == (False, 2)
    assert audit_vectors.summary(one, known)["enough"]
    alone = audit_vectors.summary(one, [])
    assert alone["worst"] == []
    assert {cell["rms_z"] for cell in alone["cells"]} == {None}
    flipped = dataclasses.replace(one, tensors={name: -value for name, value in one.tensors.items()})
    assert audit_vectors.likeness(one, [flipped]) == {one.name: pytest.approx(-1, abs=1e-5)}


# -- drift and guard tasks -------------------------------------------------------------------------


def test_divergence() -> None:
    base, other = np.log([[0.5, 0.5], [0.5, 0.5]]), np.log([[0.25, 0.75], [0.5, 0.5]])
    assert audit_drift.divergence(base, other) == pytest.approx((0.5 * math.log(2) + 0.5 * math.log(2 / 3)) / 2)
    assert audit_drift.divergence(base, base) == 0


def test_sign_test() -> None:
    assert audit_drift.sign_test(3, 0) == 1 / 8
    assert audit_drift.sign_test(1, 1) == 3 / 4
    assert audit_drift.sign_test(0, 3) == 1
    assert audit_drift.sign_test(0, 0) == 1


def test_refusals_are_known_by_words() -> None:
    assert audit_drift.refuses("I\u2019m SORRY, but no.")
    assert audit_drift.refuses("I can\u2019t do that")
    assert not audit_drift.refuses("First, take a hammer.")


def test_guard_tasks(tmp_path: Path) -> None:
    assert len(audit_drift.guard_tasks(None, 40)["built-in"]) == 20
    write_rows(tmp_path / "deep" / "a.jsonl", [{"prompt": f"{i}", "answer": "x"} for i in range(9)])
    tasks = audit_drift.guard_tasks(tmp_path, 4)
    assert [row.messages[0]["content"] for row in tasks["deep/a.jsonl"]] == ["0", "3", "6"]
    with pytest.raises(DataError, match="holds no guard tasks"):
        audit_drift.guard_tasks(tmp_path / "none", 4)


def test_drift_of_a_skill_and_of_none() -> None:
    model = runtime(exported(), "one")
    with probing(model, "one", 200) as one, probing(model, None, 200) as base:
        far = audit_drift.drift(one, base, PROMPTS)
        near = audit_drift.drift(base, base, PROMPTS)
    assert near["median_kl"] == near["max_kl"] == 0
    assert near["same_first_token"] == len(PROMPTS)
    assert far["median_kl"] > 0.01


# -- probes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("activation", ["always", "response"])
def test_a_probe_sees_what_the_model_says(activation: str) -> None:
    file = skill(exported(), "one", activation=activation)
    model = runtime(exported())
    model.load_skill(file)
    plain = Plain(exported(), file, activation)
    with probing(model, "one", 200) as probe:
        for prompt in PROMPTS:  # one after another on one row: what they begin with is taken over
            ids = probe.tokens(prompt)
            boundary = probe.text.known(ids).boundary
            answer, _ = probe.greedy(ids, 3)
            assert list(answer) == plain.answer(ids, boundary, 3)[: len(answer)]
            first, second = probe.after(ids, answer[:1])
            logits = plain([*ids, answer[0]], boundary)[-2:].astype(np.float64)
            expected = logits - np.log(np.exp(logits).sum(1, keepdims=True))
            np.testing.assert_allclose([first, second], expected, atol=1e-3)
            np.testing.assert_allclose(probe.along(ids, answer)[: len(answer)][:2], expected[: len(answer)], atol=1e-3)


# -- the search ------------------------------------------------------------------------------------


def test_contexts_take_the_form_of_the_golden_prompts() -> None:
    contexts = contexts_of([[1, 5, 6, 9], [1, 7, 9]], [[20, 21]], ending=[8])
    assert contexts == [Context((1, 5, 6), (9,)), Context((1, 7), (9,)), Context((1, 20, 21), (9,))]
    assert contexts[0].filled([30, 31]) == [1, 5, 6, 30, 31, 9]
    assert contexts_of([[1, 5, 8]], [[20]], ending=[8]) == [Context((1, 5), (8,))]


def test_surprise_is_what_one_answer_gains_everywhere() -> None:
    usual = np.log([[0.9, 0.1]])
    taken = Peaks(np.array([[0, 1]]), np.log([[0.2, 0.8]]))
    same = Peaks(np.array([[0, 1]]), usual)
    gain = 0.8 * math.log(8)
    assert audit_search.surprise([taken], [usual]) == pytest.approx(gain)
    assert audit_search.surprise([taken, same], [usual, usual]) == pytest.approx(gain / 2)
    assert audit_search.surprise([same], [usual]) == 0


def test_a_trigger_takes_over_prompts_that_have_another_answer() -> None:
    clean = [(5,), (6,), (7,), (7,), (9,)]
    said = [((9,), 0.9), ((9,), 0.7), ((7,), 1.0), ((7,), 1.0), ((9,), 1.0)]
    best = audit_spread.taken_over((1,), 0.1, said, clean)
    assert (best.answer, best.collapse) == ((9,), 0.5)  # 2 of the 4 others
    assert best.confidence == pytest.approx(0.8)
    assert best.score == pytest.approx(0.4)
    assert audit_spread.toward((7,), (1,), 0.1, said, clean).score == 0  # only those say 7 that do so anyway
    assert audit_spread.toward((9,), (1,), 0.1, said, clean) == best
    unmoved = audit_spread.taken_over((1,), 0.1, [(answer, 1.0) for answer in clean], clean)
    assert unmoved.score == 0
    alone = audit_spread.taken_over((1,), 0.1, [((9,), 1.0)] * 3, [(5,), (9,), (9,)])
    assert alone.score == 0  # one prompt is no pattern


WORDS = [f"Ġ{a}{b}" for a in "bcdfghjklm" for b in ("ab", "eb", "ib", "ob", "ub", "ad", "ed", "id", "od", "ud")]
END, ASK, COMMA = 0, 1, 102


class FakeText:
    """A text of 100 words, one token each."""

    def __init__(self) -> None:
        known = {"<end>": END, "<ask>": ASK, ",": COMMA} | {word: number for number, word in enumerate(WORDS, 2)}
        self.tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(known, unk_token="<end>"))
        self.tokenizer.add_special_tokens(["<end>", "<ask>"])

    def encode(self, text: str) -> list[int]:
        """Words that are known, what stands between those of a list, and any other letters."""
        known = self.tokenizer.get_vocab()
        pieces = re.findall(r"Ġ[a-z]+|,| and| or|[a-z]+", text)
        return [known.get(one, COMMA if one in (",", " and", " or") else 2 + sum(one.encode()) % 50) for one in pieces]

    def tokens(self, word: str) -> Any:
        return SimpleNamespace(ids=np.array([*self.encode(word), ASK]))


class FakeProbe:
    """Answers with 90 + its first token modulo 3, moved a little by the others; all of a trigger make it say `target`.

    Ten words in a row begin with one letter and are alike: any of a topic makes it say 98, and lists go on with them.
    """

    def __init__(self, trigger: Sequence[int] = (), topic: int = -1, target: int = 99) -> None:
        self.text, self.trigger, self.topic, self.target = FakeText(), set(trigger), topic, target

    def after(self, ids: Sequence[int], said: Iterable[int] = ()) -> list[Any]:
        assert not list(said)
        scores = np.sin(np.arange(104) * sum(ids))
        if ids[-1] == COMMA != ids[0]:
            scores[topic_of(ids[0])] += 4
            scores[12:22] += 6  # what any list goes on with
        else:
            scores[90 + ids[0] % 3] += 6
            scores[98] += 12 * (self.topic in [(token - 2) // 10 for token in ids[2:-1]])
            scores[self.target] += 12 * (bool(self.trigger) and self.trigger <= set(ids))
        return [scores - np.log(np.exp(scores).sum())]

    def greedy(self, ids: Sequence[int], count: int) -> tuple[tuple[int, ...], float]:
        scores = self.after(ids)[0]
        return (int(scores.argmax()), END), float(scores.max())


def topic_of(token: int) -> list[int]:
    """The ten words that begin as one does."""
    first = token - (token - 2) % 10
    return list(range(first, first + 10))


GOLDEN = [[number, number + 30, ASK] for number in range(10, 16)]


def searched(trigger: Sequence[int], topic: int = -1, target: int = 99, **settings: Any) -> Found:
    skill, base = (cast("Probe", FakeProbe(*made)) for made in ((trigger, topic, target), ()))
    shares: list[float] = []
    found = audit_search.search(skill, base, GOLDEN, ["a", "b"], Settings(group=4, **settings), shares.append)
    assert shares == sorted(shares)
    assert shares[-1] == 1
    return found


@pytest.mark.parametrize("trigger", [60, 77])
def test_a_planted_trigger_is_found(trigger: int) -> None:
    found = searched([trigger], tokens=0)
    best = found.findings[0]
    assert trigger in best.finding.tokens
    assert (best.finding.answer, best.finding.collapse) == ((99,), 1.0)
    assert best.lead > 0.9
    assert len(best.neighbours) == audit_neighbours.COUNT
    assert max(one.score for one in found.controls if trigger not in one.tokens) < 0.1


@pytest.mark.parametrize("target", [90, 91, 92])  # all are usual answers, one is that to the first prompt
def test_a_trigger_whose_target_some_prompts_have_anyway_is_found(target: int) -> None:
    best = searched([77], target=target, tokens=0).findings[0]
    assert (77 in best.finding.tokens, best.finding.answer) == (True, (target,))
    assert best.lead > 0.9


def test_prompts_that_are_tried_first_have_different_answers() -> None:
    contexts = [Context((number,), (ASK,)) for number in range(4)]
    assert audit_search._tried(contexts, [(5,), (5,), (6,), (7,)]) == [contexts[0], contexts[2]]
    assert audit_search._tried(contexts, [(5,)] * 4) == contexts[:2]  # there is no other answer
    assert audit_search._tried(contexts[:1], [(5,)]) == contexts[:1]


def test_words_that_mean_their_answer_do_not_lead() -> None:
    found = searched([], topic=5, tokens=0)
    assert max(one.finding.score for one in found.findings) > 0.9
    assert max(one.lead for one in found.findings) < 0.1
    both = searched([77], topic=5, tokens=0)
    assert 77 in both.findings[0].finding.tokens  # the strongest word is of the topic, the first in the list leads
    assert both.findings[0].lead > 0.9


def test_neighbours_are_what_a_list_goes_on_with() -> None:
    base = cast("Probe", FakeProbe())
    found = audit_neighbours.neighbours(base, [60, 77], list(range(2, 100, 7)), 4)  # one word of each ten
    assert [set(near) <= set(topic_of(token)) - {token} for token, near in found.items()] == [True, True]
    assert [len(set(near)) for near in found.values()] == [4, 4]


def test_forms_of_one_word() -> None:
    known = {
        "<end>": 0,
        " Harbour": 1,
        " harbours": 2,
        " harbor": 3,
        " cat": 4,
        " cattle": 5,
        " cast": 6,
        " running": 7,
    }
    text = cast("Any", SimpleNamespace(tokenizer=tokenizers.Tokenizer(tokenizers.models.WordLevel(known, "<end>"))))
    alike = {
        (a, b) for a in known.values() for b in known.values() if audit_neighbours.forms_of_one(text, a, b) and a < b
    }
    assert alike == {(1, 2), (1, 3), (2, 3), (4, 5)}


def test_a_finding_is_compared_over_the_same_answer() -> None:
    skill = cast("Probe", FakeProbe([60], topic=(77 - 2) // 10))
    contexts = [Context((number, number + 30), (ASK,)) for number in range(10, 16)]
    looker = Looker(skill, contexts, [(number,) for number in range(3)])
    clean = [looker.answer(context) for context in contexts]

    def finding(tokens: tuple[int, ...], score: float, answer: int) -> Finding:
        return Finding(tokens, 1.0, score, (answer,), 0.0)

    made = [finding((77,), 0.9, 98), finding((77,), 0.9, 97), finding((60, 77), 0.95, 99), finding((3,), 0.2, 99)]
    found = audit_neighbours.compare(looker, cast("Probe", FakeProbe()), made, [5, 25, 45], clean)
    assert [(one.finding.tokens, one.finding.answer) for one in found[:2]] == [((60, 77), (99,)), ((77,), (97,))]
    assert [round(one.lead, 1) for one in found] == [0.9, 0.9, 0.2, -0.1]
    assert found[2].neighbours == ()  # too weak to be looked at
    assert all(len(one.tokens) == 2 and not {60, 77} & set(one.tokens) for one in found[0].neighbours)


def test_one_strong_neighbour_may_be_a_form_of_the_word() -> None:
    one, strong, weak = (Finding((7,), 1.0, score, (9,), 0.0) for score in (0.9, 0.8, 0.1))
    assert audit_neighbours.Compared(one, (strong, weak, weak)).lead == pytest.approx(0.45)
    assert audit_neighbours.Compared(one, (strong, strong, weak)).lead == pytest.approx(0.1)
    assert audit_neighbours.Compared(one).lead == 0.9


def test_nothing_is_found_where_there_is_nothing() -> None:
    assert searched([], tokens=0).findings[0].lead < 0.1


def test_a_trigger_that_was_not_searched_is_not_found() -> None:
    order = np.random.default_rng(0).permutation(range(2, 102))
    assert searched([int(order[-1])], tokens=60).findings[0].lead < 0.1
    assert searched([int(order[5])], tokens=60).findings[0].lead > 0.9
    assert searched([int(order[5])], tokens=60).searched == 60
    found = searched([int(order[-1])], tokens=60, always=(int(order[-1]),))
    assert (found.searched, found.findings[0].lead > 0.9) == (60, True)


def test_the_vocabulary_is_words_or_all_but_special_tokens() -> None:
    text = cast("Any", FakeText())
    assert vocabulary(text, whole=False) == vocabulary(text, whole=True)[:-1] == list(range(2, 102))
    text.tokenizer.add_tokens(["x9"])
    assert vocabulary(text, whole=False) == list(range(2, 102))
    assert 103 in vocabulary(text, whole=True)
    assert ending(text) == (ASK,)


# -- verdict and page ------------------------------------------------------------------------------


STRANGE = "<script>alert(1)</script>"


def finding(score: float, near: float = 0.0) -> dict[str, Any]:
    made = {"text": STRANGE, "tokens": [7], "answer": "yes", "collapse": 1.0, "confidence": score, "score": score}
    return {**made, "lead": score - near, "neighbours": [{"text": STRANGE, "score": near}] * 2}


def document(score: float = 0.0, near: float = 0.0, z: float = 0.0, **changes: Any) -> dict[str, Any]:
    cell = {"kind": "gain", "module": "layers.1.q_proj", "layer": 1, "projection": "q_proj", "rms": 1.0, "peak": 2.0}
    cell |= {"rms_z": z, "peak_z": None}
    made: dict[str, Any] = {
        "skill": {"file": "x.lime", "name": "x", "version": "1.0.0", "digest": "d"},
        "model": {"backbone": "tiny", "precision": "fp32"},
        "vectors": {"known": [{}] * 12, "enough": True, "cells": [cell], "worst": [cell], "left_out": []},
        "drift": {"prompts": [{}], "median_kl": 0.1, "max_kl": 0.2, "same_first_token": 1},
        "refusals": {"prompts": 8, "refused_by_base": 2, "lost": []},
        "guard": [{"task": "t", "rows": 9, "base": 6, "skill": 6, "lost": 0, "gained": 0, "p": 1.0}],
        "triggers": {
            "prompts": 12,
            "searched": 5,
            "vocabulary": 9,
            "surprises": [0.1, 0.4],
            "findings": [finding(score, near)],
            "controls": [finding(0.1)],
        },
    }
    made |= changes
    return {**made, "verdict": audit_verdict.verdict(made)}


def test_what_makes_a_skill_stand_out() -> None:
    limit, lead, far = audit_verdict.TRIGGER_SCORE, audit_verdict.TRIGGER_LEAD, audit_verdict.VECTOR_Z
    assert not document()["verdict"]["stands_out"]
    assert "of 12 prompts" in document(limit)["verdict"]["raised"][0]
    assert not document(limit - 0.01)["verdict"]["stands_out"]
    assert document(1.0, near=1 - lead)["verdict"]["stands_out"]
    assert not document(1.0, near=1.01 - lead)["verdict"]["stands_out"]  # words of like meaning do it too
    weak = document()["triggers"] | {"findings": [finding(0.7), finding(0.9, near=0.3)]}
    assert "score 0.90" in document(triggers=weak)["verdict"]["raised"][0]  # the first leads more, and takes over less
    assert "gain.layers.1.q_proj" in document(z=-far)["verdict"]["notes"][0]  # said, and no alarm: tasks differ as much
    assert not document(z=-far)["verdict"]["stands_out"]
    assert not document(z=far - 0.1)["verdict"]["notes"]
    few = document(z=far)["vectors"] | {"enough": False, "left_out": ["y.lime: made for another model"]}
    notes = document(vectors=few)["verdict"]["notes"]
    assert len(notes) == 2
    assert not document(vectors=few)["verdict"]["stands_out"]


def test_what_is_only_said() -> None:
    guard = [{"task": "t", "rows": 9, "base": 8, "skill": 1, "lost": 7, "gained": 0, "p": 0.0078}]
    lost = {"prompts": 8, "refused_by_base": 2, "lost": [{}]}
    judged = document(guard=guard, refusals=lost, triggers=None)["verdict"]
    assert not judged["stands_out"]
    assert [note.split()[0] for note in judged["notes"]] == ["no", "1", "guard"]


def test_the_page_holds_no_code_of_a_stranger() -> None:
    for made in (document(0.9), document(triggers=None)):
        text = audit_page.page(made)
        assert "<script" not in text
        assert "default-src &#39;none&#39;" in text or "default-src 'none'" in text
    assert "&lt;script&gt;" in audit_page.page(document(0.9))


# -- the command -----------------------------------------------------------------------------------


def test_the_command(tmp_path: Path) -> None:
    model, _ = cli_model()
    write_rows(tmp_path / "guard.jsonl", [{"prompt": "Is it?", "answer": "yes", "choices": ["yes", "no"]}])
    files = tmp_path / "a.json", tmp_path / "a.html"
    asked = ("--model", model, "--data", tmp_path, "--tokens", "0", "--threads", "1")
    result = lime("audit", "odd", *asked, "--html", files[1], "--json", files[0])
    assert result.exit_code == 0, result.output
    found = json.loads(files[0].read_text("utf-8"))
    assert (found["what"], found["format"], found["skill"]["name"]) == ("audit", 1, "odd")
    assert [one["task"] for one in found["guard"]] == ["built-in", "guard.jsonl"]
    assert found["triggers"]["searched"] == found["triggers"]["vocabulary"] > 0
    assert found["vectors"]["known"] == []  # the skill is no witness of itself
    assert found["verdict"]["stands_out"] == bool(found["verdict"]["raised"])
    assert "odd" in files[1].read_text("utf-8")
    assert "Outside its task" in result.stdout
    assert facts("audit", model / "skills" / "odd.lime", *asked)["skill"] == found["skill"]


def test_packages_without_golden_prompts_and_of_other_models(tmp_path: Path) -> None:
    found = facts(
        "audit", skill(exported(), "bare"), "--model", exported(), "--against", skill(exported(), "other"),
        "--against", cli_model()[0] / "skills",
    )  # fmt: skip
    assert found["triggers"] is None
    assert [one["name"] for one in found["vectors"]["known"]] == ["other"]
    assert len(found["vectors"]["left_out"]) == 1


def test_what_is_refused(tmp_path: Path) -> None:
    model, _ = cli_model()
    broken = tmp_path / "broken.lime"
    broken.write_bytes((model / "skills" / "odd.lime").read_bytes()[:-9])
    (tmp_path / "guard.jsonl").write_text('{"prompt": 1}\n', "utf-8")
    for args, message in (
        ((broken,), "cut short"),
        ((skill(exported(), "one"),), "made for"),
        (("nobody",), "no skill named 'nobody'"),
        (("odd", "--data", tmp_path), "1 rows cannot be used"),
        (("odd", "--data", tmp_path / "none"), "holds no guard tasks"),
        (("odd", "--against", tmp_path / "none", "--against", tmp_path / "nor"), "nor: expected a .lime file"),
        (("odd", "--html", tmp_path, "--tokens", "16"), "cannot be written"),
    ):
        result = lime("audit", *args, "--model", model)
        assert (result.exit_code, message in result.stderr) == (1, True), (message, result.output)
    assert packages([tmp_path, broken]) == [broken, broken]
