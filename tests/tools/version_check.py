"""Checks one version of onnxruntime for `tests.tools.versions`: `python -P version_check.py FOLDER`.

`tests.tools.versions` prepares FOLDER and runs this file in each of its environments, which have the base install only.
Prints one JSON object with the results and all faults.
"""

from __future__ import annotations

import argparse
import json
import traceback
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from lime_edge.runtime import Runtime
from lime_edge.runtime.model.session import SessionSettings, open_session
from lime_edge.runtime.native import operators

Feed = dict[str, npt.NDArray[Any]]

TOLERANCE = 1e-5  # of the largest output: native against function
PROMPTS = ("Hello, is it so?", "What is the answer to the other one?")
IDS = np.array([[5, 9, 41, 3, 77, 120, 8], [7, 7, 200, 31, 6, 54, 99]])
FUNCTION, NATIVE = SessionSettings(threads=1, operators=None), SessionSettings(threads=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    found: dict[str, Any] = {"onnxruntime": ort.__version__, "numpy": np.__version__, "faults": []}
    for check in (same_operators, same_bits, same_answers):
        try:
            found["faults"] += check(folder, found)
        except Exception as error:  # noqa: BLE001  any failure of an old version is a result
            where = traceback.extract_tb(error.__traceback__)[-1].name
            found["faults"].append(f"{check.__name__}, {where}: {type(error).__name__}: {error}")
    print(json.dumps(found))


def same_operators(folder: Path, found: dict[str, Any]) -> list[str]:
    """Single operators: the native operator computes the same as the function."""
    library = operators.installed()
    found["native"], worst = library.cpu, 0.0
    for path in sorted((folder / "operators").glob("*.onnx")):
        with np.load(path.with_suffix(".npz")) as feed:
            one, other = (open_session(path, how).run(None, dict(feed)) for how in (NATIVE, FUNCTION))
        for native, function in zip(one, other, strict=True):
            worst = max(worst, float(np.abs(native - function).max() / np.abs(function).max()))
    found["difference"] = worst
    return [] if worst <= TOLERANCE else [f"native and function differ by {worst:.1e}; expected at most {TOLERANCE:g}"]


def same_bits(folder: Path, found: dict[str, Any]) -> list[str]:
    """Without skills, a prompt and a cached step equal those of the builder's plain graph, bit for bit."""
    faults = []
    for plain in sorted(folder.glob("*/plain/model.onnx")):
        model = plain.parent.parent / "model" / "model.onnx"
        expected = _logits(plain, FUNCTION)
        for how, name in ((NATIVE, "native"), (FUNCTION, "function")):
            differing = int((_logits(model, how) != expected).sum())
            if differing:
                faults.append(f"{model.parent.parent.name}: {differing} logits of the base differ with {name}")
    return faults


def _logits(path: Path, how: SessionSettings) -> npt.NDArray[Any]:
    """Logits of a prompt and of one more token with its cache, [B, S + 1, V]."""
    session = open_session(path, how)
    names = [output.name for output in session.get_outputs()]
    past = [value for value in session.get_inputs() if value.name.startswith("past_key_values")]
    empty = {value.name: np.zeros((len(IDS), value.shape[1], 0, _head(path)), np.float32) for value in past}
    first: Feed = dict(zip(names, session.run(names, _feed(IDS, IDS.shape[1], empty)), strict=True))
    cache = {value.name: first[value.name.replace("past_key_values", "present")] for value in past}
    (then,) = session.run(["logits"], _feed(IDS[:, :1], IDS.shape[1] + 1, cache))
    return np.concatenate([first["logits"], then], axis=1)


def _head(path: Path) -> int:
    config = json.loads((path.parent / "genai_config.json").read_text("utf-8"))
    return int(config["model"]["decoder"]["head_size"])


def _feed(ids: npt.NDArray[Any], length: int, cache: Feed) -> Feed:
    return {"input_ids": ids, "attention_mask": np.ones((len(ids), length), np.int64), **cache}


def same_answers(folder: Path, found: dict[str, Any]) -> list[str]:
    """The runtime generates the same tokens with native operators and with functions, for the base and for a skill."""
    faults = []
    found["answers"] = 0
    for skill in sorted(folder.glob("*/skill.lime")):
        answers = []
        for wanted in ("auto", None):
            runtime = Runtime.load(skill.parent / "model", threads=1, operators=wanted)
            if wanted and not runtime.operators.native:
                faults.append(f"{skill.parent.name}: {runtime.operators.reason}")
            runtime.load_skill(skill, "skill")
            generated = runtime.generate(list(PROMPTS) * 2, [None, None, "skill", "skill"], max_new_tokens=16)
            answers.append([answer.token_ids for answer in generated])
        found["answers"] += len(answers[0])
        if answers[0] != answers[1]:
            faults.append(f"{skill.parent.name}: native {answers[0]}, function {answers[1]}")
        if answers[0][:2] == answers[0][2:]:
            faults.append(f"{skill.parent.name}: the skill changes nothing")
    return faults


if __name__ == "__main__":
    main()
