"""One batch with a different prompt and a different skill in each row; None is the base.

lime-edge demo --dir smollm2-135m-int4     # once, to make the model
python examples/mixed_batch.py [MODEL_DIR] [SKILL.lime ...]
"""

import sys
from pathlib import Path

from lime_edge import Runtime

PROMPTS = {  # bare requests: the skills carry their instructions
    "json": "play some jazz in the kitchen",
    "shell": "List all .jpg files in this directory",
}


def main(model: str = "smollm2-135m-int4", *packages: str) -> None:
    runtime = Runtime.load(model)
    paths = packages or [str(path) for path in Path(model).glob("skills/*.lime") if path.stem in PROMPTS]
    skills = [None, *(runtime.load_skill(path).name for path in paths)]
    prompts = [PROMPTS.get(skill or "", "What is the capital of France?") for skill in skills]
    for skill, answer in zip(skills, runtime.generate(prompts, skills, max_new_tokens=32), strict=True):
        print(f"{skill or 'base'}: {answer.text!r}")


if __name__ == "__main__":
    main(*sys.argv[1:])
