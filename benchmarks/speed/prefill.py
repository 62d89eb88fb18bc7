"""Time of prefill: with one skill, with many skills, and with other engines' adapters.

    python -m benchmarks.speed.prefill EXPORTED SKILL.lime... [--threads 1] [--rivals genai,llama,peft] [--json FILE]

Every figure is one prompt on an empty cache, in runs of 256 tokens as the runtime makes them. Rows without "Runtime"
time the session's runs alone, with inputs and outputs bound in advance; both graphs compute the logits of every
position unless the row says otherwise. "Runtime" rows are `Timings.prefill_seconds` of `Runtime.generate`, which
excludes the tokenizer and includes the choice of the first token. ORT-GenAI computes all logits; llama.cpp and PEFT
compute those of the last position, as their own generation does. Rivals run in processes of their own, which measure
their own times.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from typing import Any

import click
import numpy as np

from benchmarks.engines import graphs
from benchmarks.engines.graphs import Feeds, Graph, fed
from benchmarks.engines.sides import UNTOUCHED, endless
from benchmarks.harness.rounds import Group, Variant, measure
from lime_edge import Runtime
from lime_edge.contract.names import LOGITS_FROM

from .command import Comparison, numbers, often, openings, options, threads

LAST = {LOGITS_FROM: np.array([-1])}  # as the runtime feeds it


@click.command()
@options
@often
@click.option("--lengths", default="32,256,1024", show_default=True, callback=numbers, help="Tokens of the prompt.")
@click.option("--rounds", default=40, show_default=True, type=click.IntRange(1))
@click.option("--bank", default=1000, show_default=True, type=click.IntRange(1), help="Skills in the full bank.")
def main(lengths: list[int], rounds: int, bank: int, **given: Any) -> None:
    """Measure prefill."""
    for comparison in openings("prefill", max(lengths) + 8, given, rounds=rounds, bank=bank):
        for length in lengths:
            prefilling = Prefilling(comparison, length, rounds, bank)
            comparison.report.add(prefilling.skill())
            if comparison.rivals:
                comparison.report.add(prefilling.others())


class Prefilling:
    """The groups of variants for one prompt length.

    Args:
        comparison: What is compared.
        length: Tokens of the prompt.
        rounds: Number of rounds.
        bank: Number of skills in the full bank.
    """

    def __init__(self, comparison: Comparison, length: int, rounds: int, bank: int) -> None:
        self.sides, self.rivals = comparison.sides, comparison.rivals
        self.length, self.rounds, self.full = length, rounds, bank
        self.ids = self.sides.prompt(length)

    def skill(self) -> Group:
        """The base and one skill: with the native library, with the graph's functions, and through the Runtime."""
        sides = self.sides
        bank, ids = sides.bank(self.full)
        variants = [Variant(UNTOUCHED, self._graph(sides.plain, {}))]
        cases = {
            "base, nothing fed": {},
            "base, skill 0 fed": fed(bank[:2], ids[:1]),
            "one skill": fed(bank[:2], ids[1:2]),
            f"one skill of {self.full:,}": fed(bank, ids[-1:]),
            "one skill, last logits only": fed(bank[:2], ids[1:2]) | LAST,
        }
        with ExitStack() as stack:
            directory = stack.enter_context(endless(sides.asked.exported))
            for name, graph in sides.ours.items():
                for what, feeds in cases.items():
                    variants.append(Variant(f"{what} ({name})", self._graph(graph, feeds), (UNTOUCHED,)))
                variants.append(
                    Variant(f"Runtime, one skill ({name})", self._answer(sides.runtime(directory, name)), (UNTOUCHED,))
                )
            return self._measure("skill", variants)

    def others(self) -> Group:
        """One skill against other engines with a LoRA."""
        sides = self.sides
        graph, (bank, ids) = sides.ours[sides.best], sides.bank(1)
        ours = Variant(f"one skill, last logits only ({sides.best})", self._graph(graph, fed(bank, ids[1:]) | LAST))
        return self._measure("rivals", [ours, *self._rivals(ours.name)])

    def _graph(self, graph: Graph, feeds: Feeds) -> Callable[[], float]:
        runs = graphs.prefill(graph, graph.buffers(1, self.length), self.ids, feeds)
        return lambda: sum(run() for run in runs)

    def _answer(self, runtime: Runtime) -> Callable[[], float]:
        skill = runtime.load_skill(self.sides.asked.skills[0]).name
        text = self.sides.tokenizer.decode(self.ids)

        def answer() -> float:
            timings = runtime.generate(text, skill=skill, raw=True, max_new_tokens=1).timings
            if timings.prompt_tokens != self.length:
                raise click.ClickException(f"the prompt has {timings.prompt_tokens} tokens; expected {self.length}")
            return timings.prefill_seconds

        return answer

    def _rivals(self, ours: str) -> Iterator[Variant]:
        for rival in self.rivals:
            for variant in rival.variants:
                yield Variant(rival.titled(variant), rival.prefills(variant, self.ids), (ours,))

    def _measure(self, part: str, variants: Sequence[Variant]) -> Group:
        title = f"prefill of {self.length:,} tokens, one row, {threads(self.sides.asked.threads)}"
        return measure(title, variants, self.rounds, warm=1, part=part, length=self.length)


if __name__ == "__main__":
    main()
