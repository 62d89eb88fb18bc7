"""The search of `lime-edge audit`: statistics by hand, planted triggers, words of like meaning."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import tokenizers

from lime_edge.audit import similar_words, trigger_effect, trigger_search
from lime_edge.audit.prompts import Context, PromptProbe, contexts_of, ending, vocabulary
from lime_edge.audit.trigger_effect import Finding
from lime_edge.audit.trigger_search import Found, Peaks, Settings
from lime_edge.runtime.probe import Probe


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
    assert trigger_search.surprise([taken], [usual]) == pytest.approx(gain)
    assert trigger_search.surprise([taken, same], [usual, usual]) == pytest.approx(gain / 2)
    assert trigger_search.surprise([same], [usual]) == 0


def test_a_trigger_takes_over_prompts_that_have_another_answer() -> None:
    clean = [(5,), (6,), (7,), (7,), (9,)]
    said = [((9,), 0.9), ((9,), 0.7), ((7,), 1.0), ((7,), 1.0), ((9,), 1.0)]
    best = trigger_effect.taken_over((1,), 0.1, said, clean)
    assert (best.answer, best.collapse) == ((9,), 0.5)  # 2 of the 4 others
    assert best.confidence == pytest.approx(0.8)
    assert best.score == pytest.approx(0.4)
    assert trigger_effect.toward((7,), (1,), 0.1, said, clean).score == 0  # only those say 7 that do so anyway
    assert trigger_effect.toward((9,), (1,), 0.1, said, clean) == best
    unmoved = trigger_effect.taken_over((1,), 0.1, [(answer, 1.0) for answer in clean], clean)
    assert unmoved.score == 0
    alone = trigger_effect.taken_over((1,), 0.1, [((9,), 1.0)] * 3, [(5,), (9,), (9,)])
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
    found = trigger_search.search(skill, base, GOLDEN, ["a", "b"], Settings(group=4, **settings), shares.append)
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
    assert len(best.neighbours) == similar_words.COUNT
    assert max(one.score for one in found.controls if trigger not in one.tokens) < 0.1


@pytest.mark.parametrize("target", [90, 91, 92])  # all are usual answers, one is that to the first prompt
def test_a_trigger_whose_target_some_prompts_have_anyway_is_found(target: int) -> None:
    best = searched([77], target=target, tokens=0).findings[0]
    assert (77 in best.finding.tokens, best.finding.answer) == (True, (target,))
    assert best.lead > 0.9


def test_prompts_that_are_tried_first_have_different_answers() -> None:
    contexts = [Context((number,), (ASK,)) for number in range(4)]
    assert trigger_search._tried(contexts, [(5,), (5,), (6,), (7,)]) == [contexts[0], contexts[2]]
    assert trigger_search._tried(contexts, [(5,)] * 4) == contexts[:2]  # there is no other answer
    assert trigger_search._tried(contexts[:1], [(5,)]) == contexts[:1]


def test_words_that_mean_their_answer_do_not_lead() -> None:
    found = searched([], topic=5, tokens=0)
    assert max(one.finding.score for one in found.findings) > 0.9
    assert max(one.lead for one in found.findings) < 0.1
    both = searched([77], topic=5, tokens=0)
    assert 77 in both.findings[0].finding.tokens  # the strongest word is of the topic, the first in the list leads
    assert both.findings[0].lead > 0.9


def test_neighbours_are_what_a_list_goes_on_with() -> None:
    base = cast("Probe", FakeProbe())
    found = similar_words.neighbours(base, [60, 77], list(range(2, 100, 7)), 4)  # one word of each ten
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
    alike = {(a, b) for a in known.values() for b in known.values() if similar_words.forms_of_one(text, a, b) and a < b}
    assert alike == {(1, 2), (1, 3), (2, 3), (4, 5)}


def test_a_finding_is_compared_over_the_same_answer() -> None:
    skill = cast("Probe", FakeProbe([60], topic=(77 - 2) // 10))
    contexts = [Context((number, number + 30), (ASK,)) for number in range(10, 16)]
    looker = PromptProbe(skill, contexts, [(number,) for number in range(3)])
    clean = [looker.answer(context) for context in contexts]

    def finding(tokens: tuple[int, ...], score: float, answer: int) -> Finding:
        return Finding(tokens, 1.0, score, (answer,), 0.0)

    made = [finding((77,), 0.9, 98), finding((77,), 0.9, 97), finding((60, 77), 0.95, 99), finding((3,), 0.2, 99)]
    found = similar_words.compare(looker, cast("Probe", FakeProbe()), made, [5, 25, 45], clean)
    assert [(one.finding.tokens, one.finding.answer) for one in found[:2]] == [((60, 77), (99,)), ((77,), (97,))]
    assert [round(one.lead, 1) for one in found] == [0.9, 0.9, 0.2, -0.1]
    assert found[2].neighbours == ()  # too weak to be looked at
    assert all(len(one.tokens) == 2 and not {60, 77} & set(one.tokens) for one in found[0].neighbours)


def test_one_strong_neighbour_may_be_a_form_of_the_word() -> None:
    one, strong, weak = (Finding((7,), 1.0, score, (9,), 0.0) for score in (0.9, 0.8, 0.1))
    assert similar_words.Compared(one, (strong, weak, weak)).lead == pytest.approx(0.45)
    assert similar_words.Compared(one, (strong, strong, weak)).lead == pytest.approx(0.1)
    assert similar_words.Compared(one).lead == 0.9


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
