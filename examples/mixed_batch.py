"""One batch, a different skill in each row; None is the base.

lime-edge demo --dir smollm2-135m-int4     # makes the model, once
python examples/mixed_batch.py [MODEL_DIR] [SKILL.lime ...]
"""

import sys
from pathlib import Path

from lime_edge import Runtime

PROMPT = "play some jazz in the kitchen"


def main(model: str = "smollm2-135m-int4", *packages: str) -> None:
    runtime = Runtime.load(model)
    found = packages or sorted(map(str, Path(model).glob("skills/*.lime")))
    skills = [None, *(runtime.load_skill(path).name for path in found)]
    answers = runtime.generate(PROMPT, skills, max_new_tokens=24)  # one prompt, a list of skills: a row for each
    for skill, answer in zip(skills, answers, strict=True):
        print(f"{skill or 'base'}: {answer.text!r}")


if __name__ == "__main__":
    main(*sys.argv[1:])
