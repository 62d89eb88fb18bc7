"""Learn a skill from a JSONL file, then print its size and its scores. Needs `pip install 'lime-edge[train]'`.

    python examples/learn_a_skill.py [EXAMPLES.jsonl] [CHECKPOINT] [OUTPUT.lime] [STEPS]

Each line of the file is {"prompt": ..., "answer": ...}; 200 to 2,000 lines are a good number.
"""

import sys
from dataclasses import replace
from pathlib import Path

from lime_edge.training.learn_skill import SKILL_PLAN, Recipe, learn


def main(
    data: str = "examples.jsonl", checkpoint: str = "checkpoint", output: str = "mine.lime", steps: str = "200"
) -> None:
    recipe = Recipe(Path(output).stem, about={"description": "What I taught it", "license": "Apache-2.0"})
    skill, figures = learn(Path(data), Path(checkpoint), Path(output), recipe, replace(SKILL_PLAN, steps=int(steps)))
    print(f"{skill.path}: {skill.size / 1000:.0f} KB after {figures['steps']:.0f} steps")
    for metric in skill.manifest.metrics:
        print(f"{metric['name']} on {metric['rows']} rows held back: {metric['base']:.3f} -> {metric['skill']:.3f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
