"""The route of a skill: what is stored of it, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lime_edge.errors import SkillFormatError
from lime_edge.skills.package import write_skill
from lime_edge.skills.route import Route, route_form_faults, route_number_faults
from tests.skills.format_2_cases import ROUTES
from tests.support.faults.malformed import Case, assert_refused, manifest, route, vectors


def test_what_is_stored_has_no_faults() -> None:
    stored = route().stored()
    assert list(route_form_faults(stored)) == []
    assert list(route_number_faults(stored["route.centroids"])) == []
    assert list(route_form_faults({})) == []
    assert Route(0, "last", np.ones(3)).stored()["route.centroids"].shape == (1, 3)


@pytest.mark.parametrize(
    ("given", "fault"),
    [
        (Route(-1, "mean", np.ones((1, 2))), "manifest.route.layer is -1"),
        (Route(1, "mean", np.full((1, 2), 1e6)), "contains numbers that are not finite"),
        (Route(1, "mean", np.ones((5, 2))), "at most"),
        (Route(1, "mean", np.ones((1, 2, 3))), "shape"),
    ],
)
def test_what_cannot_be_written(tmp_path: Path, given: Route, fault: str) -> None:
    with pytest.raises(SkillFormatError, match=fault.replace(".", r"\.")):
        write_skill(tmp_path / "a.lime", manifest(), vectors(), route=given)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("case", ROUTES, ids=lambda case: case.name)
def test_malformed_routes_are_refused_with_the_reason(tmp_path: Path, case: Case) -> None:
    assert_refused(tmp_path / "bad.lime", case)
