"""The draft table of a skill: the token that most probably follows the last few, learned from training answers.

A runtime offers these tokens to the model as drafts. A wrong one costs time and changes no answer.
Normative page: docs/skill-format.md, which also says what a table reveals about the training data.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypedDict

import numpy as np
import numpy.typing as npt

from lime_edge.common.strict_json import record, show, whole
from lime_edge.errors import ConfigError

from .vector_codec import Array, Form

TABLE_LIMIT = 64 * 1024  # bytes of the four tensors
ORDER_LIMIT = 6
LEAST_ROWS = 3  # rows that must share an n-gram before a table may hold it
ID_LIMIT = 2**31 - 1  # the largest token id
LEVELS = 255  # probabilities are multiples of 1/255

TOKENS, CONTEXTS, NEXT, PROBABILITY = "draft.tokens", "draft.contexts", "draft.next", "draft.probability"
DTYPES = {TOKENS: "int32", CONTEXTS: "uint16", NEXT: "uint16", PROBABILITY: "uint8"}

#: The check of `draft` in a manifest.
DRAFT = record({"order": whole(2, ORDER_LIMIT), "entries": whole(1, TABLE_LIMIT)})

Gram = tuple[int, ...]


class DraftMeta(TypedDict):
    """The part of a draft table that is in the manifest."""

    order: int
    entries: int


@dataclass(frozen=True, eq=False)
class DraftTable:
    """A back-off n-gram table: at most one next token for every context of 1 to order - 1 tokens.

    Attributes:
        stored: The four valid tensors of a package.
    """

    stored: Mapping[str, Array]

    @property
    def order(self) -> int:
        """Length of the longest n-grams, from 2 to 6: a context and the next token."""
        return int(self.stored[CONTEXTS].shape[1]) + 1

    @property
    def size(self) -> int:
        """Bytes of the four tensors."""
        return sum(array.nbytes for array in self.stored.values())

    @property
    def largest_id(self) -> int:
        """The largest token id, which must be in the vocabulary of the model that the table is used with."""
        return int(self.stored[TOKENS][-1, 0])

    def __len__(self) -> int:
        return len(self.stored[NEXT])

    def meta(self) -> DraftMeta:
        return {"order": self.order, "entries": len(self)}

    @cached_property
    def entries(self) -> Mapping[Gram, tuple[int, float]]:
        """Context of 1 to order - 1 token ids -> the next token id and its probability; read-only by convention."""
        ids = [0, *self.stored[TOKENS][:, 0].tolist()]
        rows = zip(*(self.stored[name].tolist() for name in (CONTEXTS, NEXT, PROBABILITY)), strict=True)
        return {tuple(ids[i] for i in row if i): (ids[follows[0]], level[0] / LEVELS) for row, follows, level in rows}

    def next(self, context: Sequence[int]) -> tuple[int, float] | None:
        """The most probable token after the longest known end of a context.

        Args:
            context: Token ids, the newest last; only the last order - 1 matter.

        Returns:
            Token id and probability; None if no end of the context is known.
        """
        recent = tuple(context[-(self.order - 1) :])
        for start in range(len(recent)):
            if (found := self.entries.get(recent[start:])) is not None:
                return found
        return None

    @classmethod
    def build(
        cls,
        answers: Sequence[Sequence[int]],
        order: int = 4,
        least_rows: int = LEAST_ROWS,
        limit: int = TABLE_LIMIT,
    ) -> DraftTable | None:
        """Build a table from training answers, which should hold every row of the data once.

        Only n-grams that occur in at least `least_rows` different rows are used, so that no entry comes from one
        row. Where the table would be too large, the most frequent entries stay. The result does not depend on the
        order of the rows.

        Args:
            answers: Token ids of each answer, with the end of the turn if that is to be drafted too.
            order: Length of the longest n-grams, from 2 to 6.
            least_rows: Different rows in which an n-gram must occur, at least 1.
            limit: Most bytes of the table.

        Returns:
            The table, or None if no n-gram occurs in enough rows.

        Raises:
            ConfigError: An argument is out of range.
        """
        _check_arguments(answers, order, least_rows, limit)
        entries: list[_Entry] = []
        known: Counter[Gram] = Counter()
        for length in range(2, order + 1):
            known, contexts = _frequent(answers, length, known, least_rows)
            entries += _best(known, contexts)
        entries.sort(key=lambda entry: (-entry.count, len(entry.context), entry.context))
        kept = _fitting(entries, order, limit)
        return cls(_stored(kept, order)) if kept else None


@dataclass(frozen=True)
class _Entry:
    context: Gram
    following: int
    count: int  # occurrences of context and following
    level: int  # probability in 1/255


def _check_arguments(answers: Sequence[Sequence[int]], order: int, least_rows: int, limit: int) -> None:
    ranges = {"order": (order, 2, ORDER_LIMIT), "least_rows": (least_rows, 1, ID_LIMIT), "limit": (limit, 1, 2**16)}
    faults = [fault for name, (value, low, high) in ranges.items() for fault in whole(low, high)(name, value)]
    ids = {id_ for answer in answers for id_ in answer}
    if bad := [id_ for id_ in ids if not 0 <= id_ <= ID_LIMIT]:
        faults.append(f"the answers contain the token id {show(bad[0])}; expected ids from 0 to {ID_LIMIT}")
    if faults:
        raise ConfigError("the draft table cannot be built", faults)


def _frequent(
    answers: Sequence[Sequence[int]], length: int, shorter: Counter[Gram], least_rows: int
) -> tuple[Counter[Gram], Counter[Gram]]:
    """n-grams of one length that occur in enough rows, and the contexts that something follows, with their counts.

    An n-gram in enough rows has both its parts of `length` - 1 tokens in as many, so only such ones are counted:
    that bounds the memory.
    """
    grams, contexts, rows = Counter[Gram](), Counter[Gram](), Counter[Gram]()
    for answer in answers:
        whole_row = tuple(int(id_) for id_ in answer)
        seen = set()
        for end in range(length, len(whole_row) + 1):
            gram = whole_row[end - length : end]
            if length > 2 and gram[:-1] not in shorter:
                continue
            contexts[gram[:-1]] += 1
            if length == 2 or gram[1:] in shorter:
                grams[gram] += 1
                seen.add(gram)
        rows.update(seen)
    return Counter({gram: count for gram, count in grams.items() if rows[gram] >= least_rows}), contexts


def _best(grams: Counter[Gram], contexts: Counter[Gram]) -> Iterator[_Entry]:
    """For each context its most frequent next token; of equally frequent ones the smallest id."""
    best: dict[Gram, Gram] = {}
    for gram, count in grams.items():
        known = best.get(gram[:-1])
        if known is None or (-count, gram) < (-grams[known], known):
            best[gram[:-1]] = gram
    for context, gram in best.items():
        level = round(LEVELS * grams[gram] / contexts[context])
        yield _Entry(context, gram[-1], grams[gram], max(1, level))


def _fitting(entries: Sequence[_Entry], order: int, limit: int) -> list[_Entry]:
    """The first entries that take at most `limit` bytes together."""
    kept, tokens = list[_Entry](), set[int]()
    for entry in entries:
        tokens.update(entry.context, (entry.following,))
        if 4 * len(tokens) + (2 * order + 1) * (len(kept) + 1) > limit:
            break
        kept.append(entry)
    return kept


def _stored(entries: Sequence[_Entry], order: int) -> dict[str, Array]:
    tokens = sorted({id_ for entry in entries for id_ in (*entry.context, entry.following)})
    number = {id_: index + 1 for index, id_ in enumerate(tokens)}
    rows = sorted(
        ((0,) * (order - 1 - len(e.context)) + tuple(number[id_] for id_ in e.context), number[e.following], e.level)
        for e in entries
    )
    columns = {
        TOKENS: [[id_] for id_ in tokens],
        CONTEXTS: [context for context, _, _ in rows],
        NEXT: [[following] for _, following, _ in rows],
        PROBABILITY: [[level] for _, _, level in rows],
    }
    return {name: np.array(values, DTYPES[name]) for name, values in columns.items()}


def draft_form_faults(forms: Mapping[str, Form]) -> list[str]:
    """Faults of the names, types and shapes of tensors ``draft.*``; none if there are no such tensors."""
    if not forms:
        return []
    known = ", ".join(DTYPES)
    faults = [f"tensor {show(name)}: expected one of {known}" for name in forms if name not in DTYPES]
    faults += [f"tensor {name} is missing: a draft table has {known}" for name in DTYPES if name not in forms]
    if faults:
        return faults
    entries, columns = forms[CONTEXTS].shape
    shapes = {TOKENS: (forms[TOKENS].shape[0], 1), CONTEXTS: (entries, min(columns, ORDER_LIMIT - 1))}
    for name, dtype in DTYPES.items():
        form, shape = forms[name], shapes.get(name, (entries, 1))
        if form.dtype != dtype or form.shape != shape:
            faults.append(f"tensor {name} is {form.dtype} {list(form.shape)}; expected {dtype} {list(shape)}")
    size = sum(form.shape[0] * form.shape[1] * form.dtype.itemsize for form in forms.values())
    if size > TABLE_LIMIT:
        faults.append(f"the draft table has {size} bytes; expected at most {TABLE_LIMIT}")
    return faults


def draft_number_faults(stored: Mapping[str, Array]) -> Iterator[str]:
    """Faults of the numbers of a well-formed table: it must be in the only form that `DraftTable.build` writes."""
    ids, contexts, following = (stored[name].astype(np.int64) for name in (TOKENS, CONTEXTS, NEXT))
    count = len(ids)
    if (ids < 0).any() or (np.diff(ids[:, 0]) <= 0).any():
        yield f"tensor {TOKENS} is not a rising sequence of token ids from 0"
    if (contexts > count).any():
        yield f"tensor {CONTEXTS} reaches {contexts.max()}; expected at most {count}, the number of tokens"
    if ((contexts[:, :-1] > 0) & (contexts[:, 1:] == 0)).any() or (contexts[:, -1] == 0).any():
        yield f"tensor {CONTEXTS} has rows that are empty or not aligned to the right"
    if not _rising(contexts):
        yield f"tensor {CONTEXTS} has rows that repeat or are not sorted"
    if (following < 1).any() or (following > count).any():
        yield f"tensor {NEXT} has numbers from {following.min()} to {following.max()}; expected 1 to {count}"
    if (stored[PROBABILITY] == 0).any():
        yield f"tensor {PROBABILITY} contains 0; expected 1 to {LEVELS}"
    used = np.bincount(np.concatenate([contexts.ravel(), following.ravel()]), minlength=count + 1)
    if unused := int((used[1 : count + 1] == 0).sum()):
        yield f"tensor {TOKENS} has {unused} tokens that no entry uses"


def _rising(rows: npt.NDArray[Any]) -> bool:
    """Whether every row [entries, columns] is greater than the one before it, compared from the left."""
    steps = np.diff(rows, axis=0)
    first = (steps != 0).argmax(axis=1)[:, None]  # the first column in which a row differs; 0 if none does
    return bool((np.take_along_axis(steps, first, axis=1) > 0).all())
