"""What reading once saves: the second turn of a chat, and many questions on one context.

    python -m benchmarks.speed.contexts MODEL [--tokens 1000] [--questions 10] [--rounds 5] [--json FILE]

Both sides are the same Runtime, with its prefix cache and with `prefix_cache=0`. Times are those of whole calls that
answer with one token, so they include the template, the tokenizer, the search and the copies. "Questions" are one read
of the context and all questions on it, against as many full reads. Every round has a text of its own. The base answers.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import click
from tokenizers import Tokenizer

from benchmarks.harness.rounds import Group, Report, Variant, measure
from lime_edge import Runtime
from lime_edge.contract.names import TOKENIZER_FILE

from .command import threads as counted

_WORDS: tuple[str, ...] = ("the", "a", "old", "new", "green", "river", "stone", "house", "garden", "winter", "engine")
_WORDS += (
    "and",
    "of",
    "in",
    "with",
    "under",
    "from",
    "sees",
    "finds",
    "keeps",
    "makes",
    "asks",
    "tells",
    "opens",
    "holds",
)
_QUESTIONS = ("What is it about?", "Who is there?", "Where does it happen?", "What comes first?", "How does it end?")
_ANSWER = 32  # maximum tokens of the answer in the history
_KEPT, _REREAD = "kept", "read again"


@click.command()
@click.argument("model", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--tokens", default=1000, show_default=True, type=click.IntRange(8), help="Tokens of history or context.")
@click.option("--questions", default=10, show_default=True, type=click.IntRange(1), help="Questions on a context.")
@click.option("--rounds", default=5, show_default=True, type=click.IntRange(1))
@click.option("--threads", default=2, show_default=True, type=click.IntRange(1))
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Also write the results to this JSON file.")
def main(model: Path, tokens: int, questions: int, rounds: int, threads: int, json_path: Path | None) -> None:
    """Measure the second turn of a chat, and questions on a context."""
    sides = Sides(model, tokens, questions, threads)
    report = Report("contexts", {"tokens": tokens, "questions": questions, "rounds": rounds, "threads": threads})
    report.add(sides.chat(rounds))
    report.add(sides.context(rounds))
    report.write(json_path)


class Sides:
    """Two runtimes of one model, and the texts that they read.

    Args:
        model: An exported model.
        tokens: Tokens of a history or context.
        questions: Questions on a context.
        threads: Of ONNX Runtime.
    """

    def __init__(self, model: Path, tokens: int, questions: int, threads: int) -> None:
        self.keeping = Runtime.load(model, threads=threads)
        self.plain = Runtime.load(model, threads=threads, prefix_cache=0)
        self.tokenizer = Tokenizer.from_file(str(model / TOKENIZER_FILE))
        self.tokens, self.threads = tokens, counted(threads)
        self.questions = [f"{_QUESTIONS[at % len(_QUESTIONS)]} ({at})" for at in range(questions)]

    def chat(self, rounds: int) -> Group:
        """The second turn of a chat: its first token."""

        def turn(runtime: Runtime, text: str) -> float:
            first = [{"role": "user", "content": text}]
            said = runtime.generate(first, max_new_tokens=_ANSWER).text or "Yes."
            second = [*first, {"role": "assistant", "content": said}, {"role": "user", "content": self.questions[0]}]
            began = time.perf_counter()
            found = runtime.generate(second, max_new_tokens=1)
            taken = time.perf_counter() - began
            _check(found.timings.reused_tokens, runtime is self.keeping)
            return taken

        return self._measure(f"second turn after {self.tokens:,} tokens", turn, rounds, self.tokens - _ANSWER // 2)

    def context(self, rounds: int) -> Group:
        """A context and all questions on it."""

        def turn(runtime: Runtime, text: str) -> float:
            began = time.perf_counter()
            if runtime is self.keeping:
                with runtime.prefill(text) as context:
                    for question in self.questions:
                        found = runtime.generate(question, context=context, max_new_tokens=1)
                        _check(found.timings.reused_tokens, True)
            else:
                for question in self.questions:
                    found = runtime.generate(f"{text}\n\n{question}", max_new_tokens=1)
                    _check(found.timings.reused_tokens, False)
            return time.perf_counter() - began

        return self._measure(f"{len(self.questions)} questions on {self.tokens:,} tokens", turn, rounds, self.tokens)

    def _measure(self, title: str, turn: Callable[[Runtime, str], float], rounds: int, tokens: int) -> Group:
        def turns(runtime: Runtime) -> Callable[[], float]:
            texts = self._texts(tokens)
            return lambda: turn(runtime, next(texts))

        variants = [Variant(_REREAD, turns(self.plain)), Variant(_KEPT, turns(self.keeping), (_REREAD,))]
        return measure(f"{title}, {self.threads}", variants, rounds, warm=0)

    def _texts(self, tokens: int) -> Iterator[str]:
        """Endless texts of about as many tokens, the same for both sides."""
        choose = random.Random(tokens)
        while True:
            text = ""
            while len(self.tokenizer.encode(text).ids) < tokens:
                text += " ".join(choose.choices(_WORDS, k=max(1, tokens // 50))) + ". "
            yield text


def _check(reused: int, kept: bool) -> None:
    if bool(reused) != kept:
        raise click.ClickException(f"{reused} tokens were reused; expected {'some' if kept else 'none'}")


if __name__ == "__main__":
    main()
