"""The tour behind `lime-edge demo`: shipped skills on a small model, with and without the skill.

The model is exported once from the default backbone and the shipped adapter, and cached. The cached model is valid if
the shipped skills fit it. The export needs the extra `export`; later runs need the base install only.
"""

from __future__ import annotations

import itertools
import json
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from lime_edge import __version__
from lime_edge.common.extras import require_extra
from lime_edge.common.files import reason
from lime_edge.common.formatting import share, short, size
from lime_edge.common.paths import SHIPPED, cache_dir
from lime_edge.contract.names import ADAPTER_CONFIG, ADAPTER_WEIGHTS, SKILLS_FOLDER
from lime_edge.errors import LimeError, ModelError
from lime_edge.reports.tables import Table
from lime_edge.runtime import Generation, Runtime
from lime_edge.skills.compatibility import check_skill
from lime_edge.skills.manifest import Metric
from lime_edge.skills.package import Skill, read_skill
from lime_edge.training.quiet import silence_libraries

MODEL = "smollm2-135m"
PRECISION: Literal["int4"] = "int4"
GAIN_ONLY = ("up_proj",)  # projections of which the shipped skills hold the gain alone
_ADAPTER = (ADAPTER_CONFIG, ADAPTER_WEIGHTS)
_SWITCHES = 1000
_SHOWN = 160  # most characters of an answer in the table


@dataclass(frozen=True)
class Stop:
    """One station of the tour: a prompt and the skill that answers it."""

    skill: str
    asked: str  # the part of the prompt that the table shows
    prompt: str


@dataclass(frozen=True)
class Answers:
    """Answers of the base model and of the skill to one prompt."""

    stop: Stop
    base: Generation
    skill: Generation


def show(
    directory: Path | None, device: str = "auto", threads: int | None = None
) -> tuple[dict[str, Any], list[Table]]:
    """Export the model if necessary, and run the tour.

    Args:
        directory: Where to keep the model; None is the cache.
        device, threads: As for `Runtime.load`.

    Returns:
        The facts as plain JSON values, and the same as tables.

    Raises:
        ModelError: Shipped files are missing, or `directory` holds something else.
        MissingExtraError: The model has to be exported, which needs the extra `export`.
    """
    began = time.perf_counter()
    skills = shipped_skills()
    where = place(skills) if directory is None else directory
    kept = fits(where, skills)
    if not kept:
        make(where)
    paths = put_skills(where, skills)
    runtime = Runtime.load(where, device, threads)
    names = [runtime.load_skill(path, replace=True).name for path in paths]
    ready = time.perf_counter() - began
    answers = [answer(runtime, stop) for stop in read_stops() if stop.skill in names]
    facts = {
        "directory": str(where),
        "from_cache": kept,
        "seconds_until_ready": round(ready, 2),
        "seconds": round(time.perf_counter() - began, 2),
        "switch_microseconds": round(switch_seconds(runtime, names) * 1e6, 2),
        "tokens_per_second": {
            "base": _speed([one.base for one in answers]),
            "skill": _speed([one.skill for one in answers]),
        },
        "measured": {skill.name: list(skill.manifest.metrics) for skill in skills},
        "bytes": {"model": _size_of(where), **{path.name: path.stat().st_size for path in paths}},
    }
    return {**facts, "answers": [_plain(one) for one in answers]}, [_side_by_side(answers), _facts(facts, names)]


def shipped_skills() -> list[Skill]:
    """Read the shipped skills, which lie beside the adapter that they were learned on.

    Raises:
        ModelError: Files are missing; all are named.
    """
    home = SHIPPED / MODEL
    faults = [f"{home / name} is missing" for name in _ADAPTER if not (home / name).is_file()]
    paths = sorted((home / SKILLS_FOLDER).glob("*.lime"))
    if not paths:
        faults.append(f"no .lime file in {home / SKILLS_FOLDER}")
    if faults:
        raise ModelError("this installation lacks files of the demo: install lime-edge again", faults)
    return [read_skill(path) for path in paths]


def place(skills: Sequence[Skill]) -> Path:
    """Cache folder of the model for these skills and this version of lime-edge."""
    return cache_dir() / "demo" / f"{MODEL}-{PRECISION}-{short(skills[0].manifest.adapter)}-{__version__}"


def fits(directory: Path, skills: Sequence[Skill]) -> bool:
    """Whether `directory` holds a usable model that all skills fit."""
    from lime_edge.runtime.model.directory import read_directory

    try:
        contract = read_directory(directory, verify=False).contract
        for skill in skills:
            check_skill(skill, contract)
    except LimeError:
        return False
    return True


def make(directory: Path) -> None:
    """Export the default backbone with the shipped adapter, which takes a minute or more."""
    from rich.console import Console

    with require_extra("export"):
        from lime_edge.training.export_checkpoint import export_checkpoint
    note = "first run: fetching the model and exporting it to int4, which takes a few minutes"
    with Console(stderr=True).status(note), silence_libraries():
        export_checkpoint(SHIPPED / MODEL, directory, PRECISION, overwrite=True, gain_only=GAIN_ONLY, expert=False)


def put_skills(directory: Path, skills: Sequence[Skill]) -> list[Path]:
    """Copy the skills to the model's skills/, so that `run` and `chat` find them by name.

    Raises:
        ModelError: A skill cannot be written.
    """
    folder = directory / SKILLS_FOLDER
    try:
        folder.mkdir(exist_ok=True)
        for skill in skills:
            data = skill.path.read_bytes()
            target = folder / skill.path.name
            if not target.is_file() or target.read_bytes() != data:
                target.write_bytes(data)
    except OSError as error:
        raise ModelError(f"{folder} cannot be written: {reason(error)}; choose another folder with --dir") from error
    return [folder / skill.path.name for skill in skills]


def read_stops() -> list[Stop]:
    """Read the stations of the tour from the shipped demo.json."""
    return [Stop(**entry) for entry in json.loads((SHIPPED / "demo.json").read_text("utf-8"))]


def answer(runtime: Runtime, stop: Stop, max_new_tokens: int = 48) -> Answers:
    """Answer one prompt greedily with the base model and with the skill."""
    settings: Any = {"max_new_tokens": max_new_tokens, "temperature": 0.0}
    runtime.use_skill(None)
    base = runtime.generate(stop.prompt, **settings)
    runtime.use_skill(stop.skill)
    return Answers(stop, base, runtime.generate(stop.prompt, **settings))


def switch_seconds(runtime: Runtime, names: Sequence[str]) -> float:
    """Median time of `use_skill` in seconds, cycling through the skills and the base."""
    took = []
    for name in itertools.islice(itertools.cycle([*names, None]), _SWITCHES):
        began = time.perf_counter()
        runtime.use_skill(name)
        took.append(time.perf_counter() - began)
    return statistics.median(took)


def _speed(generations: Sequence[Generation]) -> float:
    """Decoding speed over all answers, in tokens per second."""
    seconds = sum(one.timings.decode_seconds for one in generations)
    tokens = sum(one.timings.new_tokens - 1 for one in generations)
    return round(tokens / seconds, 1) if seconds > 0 else 0.0


def _size_of(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.iterdir() if path.is_file())


def _plain(answers: Answers) -> dict[str, Any]:
    return {**asdict(answers.stop), "base": answers.base.text, "answer": answers.skill.text}


def _side_by_side(answers: Sequence[Answers]) -> Table:
    rows = [(one.stop.skill, one.stop.asked, _cut(one.base.text), _cut(one.skill.text)) for one in answers]
    return Table(
        "one prompt for each skill, answered without and with it",
        rows,
        ("skill", "asked", "base", "with the skill"),
        lines=True,
    )


def _cut(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _SHOWN else text[:_SHOWN].rstrip() + " ..."


def _quality(metrics: Sequence[Metric]) -> str:
    """The author's measurements: one prompt is too little to judge a skill by."""
    pairs = (f"{metric['name']} {share(metric['base'])} -> {share(metric['skill'])}" for metric in metrics)
    return f"{', '.join(pairs)} on {metrics[0]['rows']} rows"


def _facts(facts: dict[str, Any], names: Sequence[str]) -> Table:
    sizes, speed = facts["bytes"], facts["tokens_per_second"]
    origin = "from the cache" if facts["from_cache"] else "exported now and cached"
    where = facts["directory"]
    rows = [
        ("switching skills", f"{facts['switch_microseconds']:.1f} microseconds, median of {_SWITCHES}"),
        ("decoding", f"{speed['base']:.0f} tokens per second without a skill, {speed['skill']:.0f} with one"),
        ("model", f"{size(sizes['model'])}, {origin}: {where}"),
        ("skills", ", ".join(f"{name} {size(count)}" for name, count in sizes.items() if name != "model")),
        *((f"quality of {name}", _quality(metrics)) for name, metrics in facts["measured"].items() if metrics),
        ("time", f"{facts['seconds_until_ready']:.1f} s until ready, {facts['seconds']:.1f} s in total"),
        ("next", f"lime-edge chat {where} --skill {names[0]}"),
    ]
    return Table("measured on this machine", rows)
