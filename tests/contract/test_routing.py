"""The routing constants: ranges, faults and JSON."""

from __future__ import annotations

import json
from typing import Any

import pytest

from lime_edge.contract.routing import Mode, Routing
from lime_edge.errors import ConfigError


def test_json_and_back() -> None:
    routing = Routing(experts=8, gamma=0.25, temperature=2, mode="soft", top_k=3, theta=0.1, softness=1.5, window=4)
    assert Routing.from_dict(json.loads(json.dumps(routing.to_dict()))) == routing


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("experts", (0, 65, 2.0, True, "4")),
        ("top_k", (0, 65)),
        ("window", (0, 17, None)),
        ("gamma", (-0.1, 1.1, float("nan"), False)),
        ("theta", (-0.1, 1.1)),
        ("temperature", (0, 1001, float("inf"))),
        ("softness", (0, "1")),
        ("mode", ("Hard", None)),
    ],
)
def test_values_out_of_range(name: str, values: tuple[Any, ...]) -> None:
    for value in values:
        with pytest.raises(ConfigError) as caught:
            Routing(**{name: value})
        assert [fault.partition(";")[0] for fault in caught.value.faults] == [f"{name} is {value!r}"]


def test_every_fault_is_listed() -> None:
    with pytest.raises(ConfigError) as caught:
        Routing(experts=0, gamma=2, mode="none")  # type: ignore[arg-type]
    assert [fault.split()[0] for fault in caught.value.faults] == ["experts", "gamma", "mode"]
    with pytest.raises(ConfigError) as caught:
        Routing.from_dict({name: value for name, value in Routing().to_dict().items() if name != "theta"} | {"k": 1})
    assert caught.value.faults == ("unknown key 'k'", "missing key 'theta'")
    with pytest.raises(ConfigError, match="the routing constants are list; expected an object"):
        Routing.from_dict([])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("mode", "experts", "top_k", "keep"), [("hard", 8, 3, 3), ("auto", 8, 3, 6), ("auto", 4, 3, 4), ("hard", 2, 3, 2)]
)
def test_how_many_experts_are_kept(mode: Mode, experts: int, top_k: int, keep: int) -> None:
    assert Routing(mode=mode, experts=experts, top_k=top_k).keep == keep
