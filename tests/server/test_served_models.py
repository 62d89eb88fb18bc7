"""Names of models, and their cards."""

from __future__ import annotations

from pathlib import Path

import pytest

from lime_edge.errors import ConfigError
from lime_edge.server.formats.api_errors import ApiError
from lime_edge.server.served_models import ServedModels, checked_base_name, is_reserved
from tests.server.served import NAME, ask, running, shared
from tests.support.runtime_models import exported, runtime, skill


def test_cards_name_no_path() -> None:
    with running() as url:
        listed = ask(url, "/v1/models").json
        one = ask(url, f"/v1/models/{NAME}:legal").json
        missing = ask(url, "/v1/models/nope")
    base, legal = listed["data"][:2]
    assert (base["id"], base["root"]) == (NAME, "sha256:" + "b" * 64)
    assert "parent" not in base
    assert legal == one
    assert (legal["parent"], legal["root"]) == (NAME, f"sha256:{shared().skills()[0].digest}")
    assert legal["generation"] == shared().skills()[0].generation
    assert legal["max_model_len"] == 256
    assert listed["diagnostics"] == []
    assert str(Path(exported()).parent) not in str(listed)
    assert (missing.status, missing.json["error"]["param"]) == (404, "model")


def test_a_skill_whose_file_has_gone_is_still_served() -> None:
    made = runtime(exported())
    path = skill(exported(), "legal", description="Says things.")
    made.load_skill(path)
    path.unlink()
    card = ServedModels(made, NAME, 1).card("legal")
    assert (card.description, card.examples) == ("Says things.", [])


def test_names() -> None:
    models = ServedModels(shared(), NAME, 1)
    assert models.skill(NAME) is None
    assert models.skill("legal") == models.skill(f"{NAME}:legal") == "legal"
    assert models.names() == [NAME, "legal", "brief"]
    for name in ("auto", "x", f"{NAME}:x"):
        with pytest.raises(ApiError):
            models.skill(name)
    assert [is_reserved(NAME, name) for name in (NAME, "auto", f"{NAME}:x", "legal")] == [True, True, True, False]


@pytest.mark.parametrize("name", ["", "a/b", "two words", "n" * 129, "auto", "café"])
def test_names_of_the_base_stand_in_urls(name: str) -> None:
    with pytest.raises(ConfigError, match="--name"):
        checked_base_name(name)
    assert checked_base_name("smollm2-135m-int4") == "smollm2-135m-int4"
