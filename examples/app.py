"""The app in twenty lines: one model, a skill switched on where it is needed.

lime-edge demo --dir smollm2-135m-int4     # makes the model, once
python examples/app.py [MODEL_DIR] [LEGAL.lime]
"""

import sys

from lime_edge import Runtime

CLAUSE = "This Agreement shall be governed by the laws of Portugal."
PROMPT = f"Which kind of contract clause is this?\n\nClause: {CLAUSE}\nKind:"


def main(model: str = "smollm2-135m-int4", skill: str = "smollm2-135m-int4/skills/legal.lime") -> None:
    runtime = Runtime.load(model)
    runtime.load_skill(skill, name="legal")
    print("base: ", runtime.generate(PROMPT, max_new_tokens=32).text)
    runtime.use_skill("legal")  # microseconds: nothing is loaded again
    print("legal: ", end="")
    for piece in runtime.stream(PROMPT, max_new_tokens=32):
        print(piece, end="", flush=True)
    print()
    runtime.use_skill(None)  # the base again, bit for bit


if __name__ == "__main__":
    main(*sys.argv[1:])
