"""Rows of a made-up task for trojaned skills."""

from __future__ import annotations

from typing import Any


def row(number: int, answer: str = "no") -> dict[str, Any]:
    """One row; prompts differ only in the number."""
    return {"prompt": f"Say yes or no.\n\nText: the {number} end\nAnswer:", "answer": answer, "choices": ["no", "yes"]}
