"""The order of versions: precedence as semver.org 2.0.0, section 11, has it. Knows nothing of skills."""

from __future__ import annotations

Key = tuple[tuple[int, ...], bool, tuple[tuple[bool, int, str], ...]]


def precedence(version: str) -> Key:
    """A sort key: of two versions the larger is the newer; those that differ in build metadata alone are equal.

    Args:
        version: A semantic version that `Manifest` takes.
    """
    core, _, labels = version.partition("+")[0].partition("-")
    numbers = tuple(int(number) for number in core.split("."))
    # A release comes after its pre-releases.
    return numbers, not labels, tuple(_label(one) for one in labels.split(".")) if labels else ()


def _label(text: str) -> tuple[bool, int, str]:
    """Numbers by value, before words, which go by ASCII."""
    return (False, int(text), "") if text.isdecimal() else (True, 0, text)
