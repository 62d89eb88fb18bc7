"""What HTTP costs one stream, against `Runtime.stream` in a process of its own. Paired: the two take turns.

python -m benchmarks.serving.overhead MODEL [--rounds 20] [--tokens 128] [--json FILE]
"""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from typing import Any

import click

from benchmarks.harness.rounds import machine
from lime_edge import Runtime
from lime_edge.reports.tables import Table, report

from .load import Client, Streamed, served

PROMPT = "Write a long story about a lighthouse keeper, number {}."


def direct(runtime: Runtime, prompt: str, settings: dict[str, Any]) -> Streamed:
    """The same answer without HTTP."""
    began = time.perf_counter()
    stream = runtime.stream(prompt, None, **settings)
    arrivals, pieces = [], []
    for piece in stream:
        arrivals.append(time.perf_counter())
        pieces.append(piece)
    return Streamed(began, tuple(arrivals), len(stream.generation.token_ids), "".join(pieces))


def speed(answer: Streamed) -> float:
    """Tokens a second behind the first text."""
    return (answer.tokens - 1) / (answer.arrivals[-1] - answer.arrivals[0])


@click.command()
@click.argument("model", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--rounds", default=20, show_default=True, type=click.IntRange(1))
@click.option("--tokens", default=128, show_default=True, type=click.IntRange(2))
@click.option("--threads", type=click.IntRange(1))
@click.option("--json", "target", metavar="FILE", help="Also write the results to this JSON file.")
def main(model: Path, rounds: int, tokens: int, threads: int | None, target: str | None) -> None:
    """Compare one stream over HTTP with one without. Every prompt is asked on both sides, in changing order."""
    runtime = Runtime.load(model, threads=threads)
    options = [] if threads is None else ["--threads", str(threads)]
    pairs: list[tuple[Streamed, Streamed]] = []
    with served(model, "--name", "base", *options) as url:
        client = Client(url)

        def over_http(prompt: str) -> Streamed:
            body = {"model": "base", "messages": [{"role": "user", "content": prompt}], "max_tokens": tokens}
            return client.stream("/v1/chat/completions", body)

        def without(prompt: str) -> Streamed:
            return direct(runtime, prompt, {"max_new_tokens": tokens})

        for number in range(rounds + 2):
            prompt = PROMPT.format(number)
            sides = [over_http, without] if number % 2 else [without, over_http]
            found = {side: side(prompt) for side in sides}
            if found[over_http].text != found[without].text:
                raise click.ClickException(f"the answers to {prompt!r} differ")
            if number > 1:  # the first ones warm up
                pairs.append((found[over_http], found[without]))
        client.close()
    report(*results(pairs, tokens), target)


def results(pairs: list[tuple[Streamed, Streamed]], tokens: int) -> tuple[dict[str, Any], list[Table]]:
    """The JSON document and its table."""
    ratios = [speed(http) / speed(plain) for http, plain in pairs]
    later = [1e3 * (http.first - plain.first) for http, plain in pairs]
    document = {
        "benchmark": "serving-overhead",
        "machine": machine(),
        "tokens": tokens,
        "pairs": len(pairs),
        "tokens_per_second": {
            "http": [speed(http) for http, _ in pairs],
            "runtime": [speed(plain) for _, plain in pairs],
        },
        "first_seconds": {"http": [http.first for http, _ in pairs], "runtime": [plain.first for _, plain in pairs]},
    }
    rows = [
        ("tokens a second over HTTP", f"{statistics.median(speed(http) for http, _ in pairs):.1f}"),
        ("tokens a second without", f"{statistics.median(speed(plain) for _, plain in pairs):.1f}"),
        ("ratio, median of pairs (quartiles)", _spread(ratios, "{:.3f}")),
        ("first text later by, ms (quartiles)", _spread(later, "{:.2f}")),
    ]
    return document, [Table("One stream over HTTP", rows)]


def _spread(values: list[float], form: str) -> str:
    low, middle, high = statistics.quantiles(values, n=4) if len(values) > 1 else values * 3
    return f"{form.format(middle)} ({form.format(low)} to {form.format(high)})"


if __name__ == "__main__":
    main()
