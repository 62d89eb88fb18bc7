"""Text for people: safe terminal output, sizes in bytes, percentages and shortened digests."""

from __future__ import annotations

import unicodedata


def printable(text: str) -> str:
    """Replace control characters, which could control a terminal, and surrogates; keep newlines and tabs."""
    return "".join(
        c if c in "\n\t" or unicodedata.category(c) not in ("Cc", "Cs") else "\N{REPLACEMENT CHARACTER}" for c in text
    )


def size(count: int) -> str:
    """A number of bytes with its unit, in powers of 1000: "1.5 MB"."""
    value, unit = float(count), "B"
    for larger in ("KB", "MB", "GB"):
        if value < 1000:
            break
        value, unit = value / 1000, larger
    return f"{value:.0f} {unit}" if unit == "B" or value >= 100 else f"{value:.1f} {unit}"


def share(value: float) -> str:
    """A value from 0 to 1 as a percentage: "98.5 %"."""
    return f"{100 * value:.1f} %"


def short(digest: str) -> str:
    """The first 12 characters of a digest, enough to compare by eye."""
    return digest[:12]
