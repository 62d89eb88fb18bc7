"""A minimal app: one model, and a skill that is switched on when it is needed.

lime-edge demo --dir smollm2-135m-int4     # once, to make the model
python examples/app.py [MODEL_DIR] [LEGAL.lime]
"""

import sys

from lime_edge import Runtime

KINDS = ("audit rights", "cap on liability", "governing law", "insurance", "termination for convenience")
CLAUSE = "This Agreement shall be governed by the laws of Portugal."
PROMPT = f"Which kind of contract clause is this?\nOptions: {', '.join(KINDS)}\n\nClause: {CLAUSE}\nKind:"


def main(model: str = "smollm2-135m-int4", skill: str = "smollm2-135m-int4/skills/legal.lime") -> None:
    runtime = Runtime.load(model)
    runtime.load_skill(skill, name="legal")
    for name, asked in ((None, PROMPT), ("legal", CLAUSE)):  # the skill carries its instruction, the base needs it
        runtime.use_skill(name)  # microseconds: nothing is loaded; None is the exact base model
        choice = runtime.choose(asked, KINDS)
        print(
            f"{name or 'base'}: {choice.label}, {choice.probabilities[choice.label]:.0%} sure; in its own words: ",
            end="",
        )
        for piece in runtime.stream(asked, max_new_tokens=24):
            print(piece, end="", flush=True)
        print()


if __name__ == "__main__":
    main(*sys.argv[1:])
