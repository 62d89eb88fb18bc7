"""Precedence of semantic versions, as defined in semver.org 2.0.0, section 11."""

from __future__ import annotations

Key = tuple[tuple[int, ...], bool, tuple[tuple[bool, int, str], ...]]


def precedence(version: str) -> Key:
    """A sort key: the newer of two versions has the larger key. Build metadata is ignored.

    Args:
        version: A valid semantic version.
    """
    core, _, labels = version.partition("+")[0].partition("-")
    numbers = tuple(int(number) for number in core.split("."))
    # `not labels`: a release comes after its pre-releases.
    return numbers, not labels, tuple(_label(label) for label in labels.split(".")) if labels else ()


def _label(text: str) -> tuple[bool, int, str]:
    """Numeric identifiers compare by value and precede alphanumeric ones, which compare in ASCII order."""
    return (False, int(text), "") if text.isdecimal() else (True, 0, text)
