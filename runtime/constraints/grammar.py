"""Answers that a JSON schema, a regular expression or a grammar describes: parsed by llguidance.

End-of-turn tokens never reach llguidance. They are allowed exactly where its parser accepts; where nothing else can
follow, only the one that training uses. Where text is forced, the mask allows only the first of the tokens that the
model's tokenizer gives to that text.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

import numpy as np

from lime_edge.common.extras import require_extra
from lime_edge.errors import ConfigError, ModelError
from lime_edge.runtime.text.prompts import Text

from .answer_spec import AnswerSpec
from .constraint import Mask

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer

_SPACES: Any = {"item_separator": ", ", "key_separator": ": ", "whitespace_flexible": False}  # those of json.dumps

_FORCED = 2048  # most forced tokens that are found at once; there may be more

#: What compiling and one step may take. The lexer's fuel stays at its default: about 20 ms to compile, 14 ms a step.
_LIMITS = {"step_max_items": 20_000, "max_lexer_states": 20_000, "max_grammar_size": 100_000}


def open_tokenizer(text: Text, vocabulary: int) -> LLTokenizer:
    """The model's tokenizer for llguidance; takes about half a second for 50,000 tokens.

    Args:
        text: Tokenizer and end-of-turn tokens.
        vocabulary: V, the logits of the graph; can be larger than the tokenizer's vocabulary.

    Raises:
        MissingExtraError: llguidance is not installed.
        ModelError: llguidance cannot use this tokenizer.
    """
    with require_extra("constrain"):
        import llguidance
    size = max(vocabulary, text.tokenizer.get_vocab_size())
    try:
        return llguidance.LLTokenizer(text.tokenizer.to_str(), n_vocab=size, eos_token=sorted(text.eos_ids))
    except (ValueError, RuntimeError) as error:
        raise ModelError(f"llguidance cannot use this model's tokenizer: {_line(error)}") from error


class Grammar:
    """A compiled specification; gives every row its own constraint.

    Args:
        spec: A schema, a regular expression or a grammar.
        tokenizer: From `open_tokenizer`.
        text: End-of-turn tokens.
        vocabulary: V.

    Raises:
        ConfigError: llguidance cannot compile it, its limits do not allow it, or nothing matches it.
    """

    def __init__(self, spec: AnswerSpec, tokenizer: LLTokenizer, text: Text, vocabulary: int) -> None:
        self._text, self._vocabulary = text, vocabulary
        with require_extra("constrain"):
            from llguidance import LLMatcher, LLParserLimits
        limits = LLParserLimits(precompute_large_lexemes=False, verbose_errors=False, **_LIMITS)
        try:
            self._matcher = LLMatcher(tokenizer, _source(spec), log_level=0, limits=limits)
            _check(self._matcher)
            self._check_special(spec)
            self._begin()
        except (ValueError, RuntimeError) as fault:
            raise ConfigError(f"the {spec.kind} of the answers is invalid or too complex: {_line(fault)}") from fault

    def start(self) -> GrammarConstraint:
        """The constraint of one row."""
        return GrammarConstraint(self._matcher.deep_copy(), self._text, self._vocabulary)

    def _check_special(self, spec: AnswerSpec) -> None:
        """Refuse texts of special tokens: where they are forced, llguidance would take them for the tokens.

        A grammar names special tokens on purpose.
        """
        special = [token for token in self._text.tokenizer.get_added_tokens_decoder().values() if token.special]
        inside = [token.content for token in special if token.content in spec.value and spec.kind != "grammar"]
        if inside:
            raise ConfigError(f"it contains {', '.join(map(repr, inside))}; expected no text of a special token")

    def _begin(self) -> None:
        """Take the first steps of an answer, which finds most faults before there is a request."""
        row = self.start()
        for token in row.forced():
            row.accept(token)
        row.allowed()


class GrammarConstraint:
    """The answer is described by a grammar. Implements `Constraint`.

    Every method raises ConfigError if a step exceeds the limits of llguidance or no token can continue the answer.
    """

    def __init__(self, matcher: LLMatcher, text: Text, vocabulary: int) -> None:
        self._matcher, self._vocabulary = matcher, vocabulary
        self._ends, self._end_id = [token for token in text.eos_ids if token < vocabulary], text.end_id
        self._ended, self._count = False, 0
        self._queue: deque[int] = deque()  # forced tokens that were not accepted yet; found once for all of them

    @property
    def complete(self) -> bool:
        return not self._ended and self._matcher.is_accepting()

    @property
    def done(self) -> bool:
        return self._ended

    def allowed(self) -> Mask:
        mask = np.zeros(self._vocabulary, np.bool_)
        if forced := self._forced():
            mask[forced[0]] = True
        elif not self._ended:
            bits = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
            _check(self._matcher)
            mask = np.unpackbits(bits, count=self._vocabulary, bitorder="little").view(np.bool_)
            mask[self._ends] = self._matcher.is_accepting()
        return mask

    def forced(self) -> list[int]:
        return list(self._forced())

    def accept(self, token: int) -> None:
        ends = token in self._ends
        if self._ended or (ends and not self.complete):
            raise ConfigError(f"token {token} is not allowed here")
        if not ends:
            self._matcher.consume_token(token)
            _check(self._matcher)
        self._ended = ends
        self._count += 1
        if self._queue and self._queue.popleft() != token:
            self._queue.clear()

    def rollback(self, count: int) -> None:
        if not 0 <= count <= self._count:
            raise ConfigError(f"rollback of {count} tokens; {self._count} were accepted")
        if not count:
            return
        self._matcher.rollback(count - self._ended)
        _check(self._matcher)
        self._queue.clear()
        self._ended, self._count = False, self._count - count

    def _forced(self) -> deque[int]:
        if not self._queue and not self._ended:
            found = self._matcher.compute_ff_tokens()[:_FORCED]
            self._matcher.consume_tokens(found)
            _check(self._matcher)
            end = [self._end_id] if self._matcher.is_stopped() else []
            self._matcher.rollback(len(found))
            self._queue.extend([*found, *end])
        return self._queue


def _check(matcher: LLMatcher) -> None:
    """Raise the error that the matcher is in; it never leaves it."""
    if matcher.is_error():
        raise ConfigError(f"the answer cannot be continued: {_line(matcher.get_error())}")


def _source(spec: AnswerSpec) -> str:
    """The specification in the form that LLMatcher takes; raises ValueError."""
    from llguidance import LLMatcher

    if spec.kind == "schema":
        return LLMatcher.grammar_from_json_schema(spec.value, defaults=_SPACES)
    return LLMatcher.grammar_from_regex(spec.value) if spec.kind == "regex" else spec.value


def _line(error: object) -> str:
    """A message of llguidance in one line of bounded length, without the state of its parser."""
    words = " ".join(str(error).partition("<non-verbose/>")[0].split())
    return "".join(c if c.isprintable() else "?" for c in words[:300])
