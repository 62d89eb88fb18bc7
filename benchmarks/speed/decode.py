"""Time of a decoding step: with one skill, with many skills, and with other engines' adapters.

    python -m benchmarks.speed.decode EXPORTED SKILL.lime... [--threads 1] [--rivals genai,llama,peft] [--json FILE]

Every figure is one decoding step at a fixed context. Rows without "Runtime" time the session's run alone, with inputs
and outputs bound in advance, for our graph and the builder's untouched graph alike. "Runtime" rows time a token of
`Runtime.generate`, including sampling, text and all Python code. Rivals run in processes of their own, which measure
their own times.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, fields
from typing import Any

import click

from benchmarks.engines import graphs
from benchmarks.engines.graphs import Array, Feeds, Graph, fed
from benchmarks.engines.sides import UNTOUCHED, endless, turn
from benchmarks.harness.rounds import Group, Variant, measure
from lime_edge import Runtime
from lime_edge.contract.names import SKILL_IDS

from .command import Comparison, numbers, often, openings, options, threads

PARTS = ("skill", "bank", "rows", "runtime", "rivals")


@click.command()
@options
@often
@click.option("--contexts", default="32,256,1024", show_default=True, callback=numbers, help="Tokens before the step.")
@click.option("--parts", default=",".join(PARTS), show_default=True, help="Parts to measure.")
@click.option("--rounds", default=200, show_default=True, type=click.IntRange(1))
@click.option("--steps", default=3, show_default=True, type=click.IntRange(1), help="Timed steps of a turn.")
@click.option("--rows", default=8, show_default=True, type=click.IntRange(2), help="Rows of a batch.")
@click.option("--banks", default="1,64,1000", show_default=True, callback=numbers, help="Skills in the bank.")
@click.option("--answers", default=20, show_default=True, type=click.IntRange(1), help="Answers through the Runtime.")
@click.option("--tokens", default=32, show_default=True, type=click.IntRange(2), help="Tokens of each answer.")
def main(contexts: list[int], parts: str, **given: Any) -> None:
    """Measure decoding steps."""
    wanted = parts.split(",")
    if unknown := set(wanted) - set(PARTS):
        raise click.UsageError(f"no part {', '.join(sorted(unknown))}; expected some of {', '.join(PARTS)}")
    sizes = Sizes(**{field.name: given.pop(field.name) for field in fields(Sizes)})
    for comparison in openings("decode", max(contexts) + sizes.tokens + 8, given, **asdict(sizes)):
        for context in contexts:
            decoding = Decoding(comparison, context, sizes)
            groups = {
                "skill": decoding.skill,
                "bank": decoding.bank,
                "rows": decoding.batch,
                "runtime": decoding.runtime,
                "rivals": decoding.others,
            }
            for part in wanted:
                if part != "rivals" or comparison.rivals:
                    comparison.report.add(groups[part]())


@dataclass(frozen=True)
class Sizes:
    """Amounts of work; see the command's options."""

    rounds: int
    steps: int
    rows: int
    banks: list[int]
    answers: int
    tokens: int


class Decoding:
    """The groups of variants at one context.

    Args:
        comparison: What is compared.
        context: Tokens before the step.
        sizes: Amounts of work.
    """

    def __init__(self, comparison: Comparison, context: int, sizes: Sizes) -> None:
        self.sides, self.rivals = comparison.sides, comparison.rivals
        self.context, self.sizes = context, sizes
        self.ids = self.sides.prompt(context)

    def skill(self) -> Group:
        """One row: the base and one skill, with the native library and with the graph's functions."""
        bank, ids = self.sides.bank(1)
        cases = {"base, nothing fed": {}, "base, skill 0 fed": fed(bank, ids[:1]), "one skill": fed(bank, ids[1:])}
        variants = [self._untouched(1)]
        for name, graph in self.sides.ours.items():
            for what, feeds in cases.items():
                variants.append(Variant(f"{what} ({name})", self._step(graph, 1, feeds), (UNTOUCHED,)))
        return self._measure("skill", variants, "one row")

    def bank(self) -> Group:
        """One row: one skill, with different numbers of skills in the bank."""
        graph, banks = self.sides.ours[self.sides.best], self.sizes.banks
        rows, ids = self.sides.bank(max(banks))
        first = f"one skill of {banks[0]:,}"
        variants = [
            Variant(
                f"one skill of {count:,}",
                self._step(graph, 1, fed(rows[: count + 1], ids[count : count + 1])),
                (first,) if at else (),
            )
            for at, count in enumerate(banks)
        ]
        changing = Variant(f"another of {max(banks):,} every step", self._changing(graph, rows, ids[1:]), (first,))
        return self._measure("bank", [*variants, changing], f"one row, {self.sides.best}")

    def batch(self) -> Group:
        """Several rows: with the base, with the same skill, and each with a skill of its own."""
        count = self.sizes.rows
        bank, skills = self.sides.bank(count)
        variants = [self._untouched(count)]
        for name, graph in self.sides.ours.items():
            same = f"one skill ({name})"
            cases = {
                f"base ({name})": (skills[:1].repeat(count), (UNTOUCHED,)),
                same: (skills[1:2].repeat(count), (UNTOUCHED,)),
                f"{count} skills ({name})": (skills[1:], (UNTOUCHED, same)),
            }
            for title, (ids, against) in cases.items():
                variants.append(Variant(title, self._step(graph, count, fed(bank, ids)), against))
        return self._measure("rows", variants, f"{count} rows", rows=count)

    def runtime(self) -> Group:
        """One row: whole answers of the Runtime against the same number of steps of the untouched graph and rivals."""
        sides, tokens = self.sides, self.sizes.tokens
        steps = itertools.cycle(graphs.decode(sides.plain, self.ids, 1, {}, tokens))
        variants = [Variant(UNTOUCHED, turn(lambda: next(steps)(), tokens, settle=0))]
        with ExitStack() as stack:
            directory = stack.enter_context(endless(sides.asked.exported))
            for name in sides.ours:
                runtime = sides.runtime(directory, name)
                skill = runtime.load_skill(sides.asked.skills[0]).name
                for what, active in (("base", None), ("one skill", skill)):
                    variants.append(Variant(f"Runtime, {what} ({name})", self._answer(runtime, active), (UNTOUCHED,)))
            ours = variants[2].name
            variants += self._rivals(tokens, ours)
            what = f"answers of {tokens} tokens, one row"
            return self._measure("runtime", variants, what, rounds=self.sizes.answers)

    def others(self) -> Group:
        """One row: one skill against other engines with a LoRA."""
        sides = self.sides
        bank, ids = sides.bank(1)
        ours = Variant(f"one skill ({sides.best})", self._step(sides.ours[sides.best], 1, fed(bank, ids[1:])))
        return self._measure("rivals", [ours, *self._rivals(self.sizes.steps, ours.name)], "one row")

    def _untouched(self, rows: int) -> Variant:
        return Variant(UNTOUCHED, self._step(self.sides.plain, rows, {}))

    def _step(self, graph: Graph, rows: int, feeds: Feeds) -> Callable[[], float]:
        (run,) = graphs.decode(graph, self.ids, rows, feeds)
        return turn(run, self.sizes.steps if rows == 1 else 1)  # one step of a batch is long enough to time

    def _changing(self, graph: Graph, rows: Array, ids: Array) -> Callable[[], float]:
        """Steps that use the skills of a bank in turn, so that none of them is in the processor's caches."""
        feeds = fed(rows, ids[:1])
        (run,) = graphs.decode(graph, self.ids, 1, feeds)
        following = itertools.cycle(ids)

        def step() -> float:
            feeds[SKILL_IDS][:] = next(following)
            return run()

        return turn(step, self.sizes.steps)

    def _answer(self, runtime: Runtime, skill: str | None) -> Callable[[], float]:
        """Mean seconds of an answer's tokens except the first, which belongs to the prefill."""
        text, tokens = self.sides.tokenizer.decode(self.ids), self.sizes.tokens

        def answer() -> float:
            timings = runtime.generate(text, skill=skill, raw=True, max_new_tokens=tokens + 1).timings
            if (timings.prompt_tokens, timings.new_tokens) != (self.context, tokens + 1):
                raise click.ClickException(
                    f"the answer has {timings.new_tokens} tokens and its prompt {timings.prompt_tokens}; "
                    f"expected {tokens + 1} and {self.context}"
                )
            return timings.decode_seconds / tokens

        return answer

    def _rivals(self, steps: int, ours: str) -> Iterator[Variant]:
        for rival in self.rivals:
            for variant in rival.variants:
                rival.ask("prompt", variant=variant, ids=self.ids)
                yield Variant(rival.titled(variant), rival.steps(variant, self.ids[-1], steps), (ours,))

    def _measure(self, part: str, variants: Sequence[Variant], what: str, **own: Any) -> Group:
        rounds = own.pop("rounds", self.sizes.rounds)
        title = f"decode after {self.context:,} tokens, {what}, {threads(self.sides.asked.threads)}"
        return measure(title, variants, rounds, part=part, context=self.context, **own)


if __name__ == "__main__":
    main()
