"""Requests of the skill data sets, and requests that belong to none of them."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from pathlib import Path

from lime_edge.evaluation.examples import read_rows
from lime_edge.evaluation.instruction import Instruction

SKILLS = (
    "assistant_routing",
    "banking_intent",
    "dialogue_summary",
    "grammar_correction",
    "legal_clause_type",
    "python_function",
    "request_to_json",
    "shell_command",
    "translate_en_fr",
)
CLASSIFICATION = ("glue/sst2", "tasks/sms_spam", "tasks/question_type")

#: Repositories whose rows are also in one of the sets above: their tasks ask something else of the same requests.
_SAME = ("clinc/oos-eval", "MiuLab/SlotGated-SLU", "sonos/nlu-benchmark", "PolyAI", "nl2bash", "jfleg", "OckBench")
_SAME_TASKS = (
    *("number_question_type", "question_topic"),
    *("film_rating_five", "film_review_sentence", "edited_film_review"),
)

_WRITTEN = Path(__file__).with_name("foreign.json")  # small talk and other languages


@dataclass(frozen=True)
class Requests:
    """Bare requests of one skill."""

    name: str
    train: list[str]
    test: list[str]


def skills(data: Path, train: int, test: int) -> list[Requests]:
    """The nine skill sets and three classification sets; no request of the test is among those to learn from."""
    folders = [*(f"skills/{name}" for name in SKILLS), *CLASSIFICATION]
    return [_requests(data / folder, train, test) for folder in folders]


def foreign(data: Path, background: set[str], rows: int) -> dict[str, list[str]]:
    """Requests for none of the skills, by kind: other tasks whole and bare, small talk, other languages, noise.

    Args:
        data: The folder of data sets.
        background: Names of tasks that the statistics were made of; they are left out.
        rows: Of each task.
    """
    found: dict[str, list[str]] = {"other tasks": [], "other tasks, bare": []}
    for folder in sorted((data / "tasks").iterdir()):
        if not (folder / "task.json").is_file() or folder.name in {*background, *_SAME_TASKS}:
            continue
        source = json.loads((folder / "task.json").read_text("utf-8"))["source"]
        if any(name in source for name in _SAME) or f"tasks/{folder.name}" in CLASSIFICATION:
            continue
        cut = Instruction.of(read_rows(folder / "train.jsonl"))
        texts = _drawn(_texts(folder / "test.jsonl"), rows)
        found["other tasks"] += texts
        found["other tasks, bare"] += [cut.bare(text) for text in texts[: rows // 2]] if cut else []
    written: dict[str, list[str]] = json.loads(_WRITTEN.read_text("utf-8"))
    return found | written | {"noise": _noise(60)}


def _requests(folder: Path, train: int, test: int) -> Requests:
    learned = _texts(folder / "train.jsonl")
    cut = Instruction.of(read_rows(folder / "train.jsonl"))
    bare = [_bare(cut, folder.name, text) for text in learned]
    asked = [_bare(cut, folder.name, text) for text in _texts(folder / "test.jsonl")]
    return Requests(folder.name, _drawn(bare, train), _drawn([text for text in asked if text not in set(bare)], test))


def _bare(cut: Instruction, name: str, text: str) -> str:
    """The request alone; grammar_correction has two instructions, which end alike."""
    return text.partition("Sentence: ")[2] if name == "grammar_correction" else cut.bare(text)


def _texts(path: Path) -> list[str]:
    rows = read_rows(path)
    return [row.messages[0]["content"] for row in rows if len(row.messages) == 1 and row.messages[0]["content"].strip()]


def _drawn(texts: list[str], count: int) -> list[str]:
    return random.Random(0).sample(texts, min(count, len(texts)))


def _noise(count: int) -> list[str]:
    rng = random.Random(7)
    found = []
    for number in range(count):
        size = rng.randint(5, 100)
        pools = ((0x21, 0x7E), (0x391, 0x3FF), (0x4E00, 0x9FFF))
        low, high = pools[number % 3]
        found.append("".join(chr(rng.randint(low, high)) for _ in range(size)))
    return found
