"""Precedence of versions, in the order of the specification."""

from __future__ import annotations

from lime_edge.common.semver import precedence

#: From the specification, section 11, oldest first.
ORDER = [
    "1.0.0-alpha",
    "1.0.0-alpha.1",
    "1.0.0-alpha.beta",
    "1.0.0-beta",
    "1.0.0-beta.2",
    "1.0.0-beta.11",
    "1.0.0-rc.1",
    "1.0.0",
    "1.0.1",
    "1.0.9",
    "1.0.10-0",
    "1.0.10-10",
    "1.0.10--",
    "1.0.10-9a",
    "1.0.10-A",
    "1.0.10-a",
    "1.0.10-a.0",
    "1.0.10",
    "1.2.0",
    "2.0.0",
    "10.0.0",
]


def test_the_order_of_versions() -> None:
    shuffled = [*ORDER[1::2], *ORDER[::2]]
    assert sorted(shuffled, key=precedence) == ORDER
    assert len({precedence(version) for version in ORDER}) == len(ORDER)
    assert precedence("1.0.0+a") == precedence("1.0.0+b.1") == precedence("1.0.0")
    assert precedence("1.0.0-a+b-c") == precedence("1.0.0-a")
