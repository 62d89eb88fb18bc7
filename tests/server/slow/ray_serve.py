"""Ray Serve with two replicas on one machine: skills by reference, streams, keys, and equal answers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
from ray import serve

from lime_edge.server.ray import RaySettings, build
from tests.server.served import HELLO, ask, chat, shared
from tests.support.runtime_models import exported

pytestmark = pytest.mark.filterwarnings("default")
URL = "http://127.0.0.1:8765"
KEY = {"Authorization": "Bearer a-key-of-sixteen"}


@pytest.fixture(scope="module", autouse=True)
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    keys = tmp_path_factory.mktemp("ray") / "keys"
    keys.write_text("alice a-key-of-sixteen\n", "utf-8")
    skills = {info.name: str(info.path) for info in shared().skills()}
    settings = RaySettings(
        model=str(exported()), skills=skills, api_keys=str(keys), least=2, most=2, cpus=0.5, threads=1, rows=4
    )
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    serve.start(http_options={"host": "127.0.0.1", "port": 8765})
    serve.run(build(settings))
    yield
    serve.shutdown()
    ray.shutdown()


def body(model: str, **fields: object) -> dict[str, object]:
    return {"model": model, "messages": HELLO, "max_tokens": 8, **fields}


def test_answers_are_those_of_the_runtime() -> None:
    for _ in range(3):
        for model, skill in (("base", None), ("legal", "legal"), ("base:brief", "brief")):
            found = ask(URL, "/v1/chat/completions", body(model), KEY)
            assert found.status == 200, found.data
            expected = shared().generate("Hello", skill, max_new_tokens=8)
            assert found.json["choices"][0]["message"]["content"] == expected.text


def test_streams() -> None:
    events = ask(URL, "/v1/chat/completions", body("legal", stream=True), KEY).events
    text = "".join(one["choices"][0]["delta"].get("content", "") for one in events)
    assert text == shared().generate("Hello", "legal", max_new_tokens=8).text


def test_errors_and_keys() -> None:
    missing = ask(URL, "/v1/chat/completions", body("nope"), KEY)
    assert (missing.status, missing.json["error"]["code"]) == (404, "model_not_found")
    assert chat(URL).status == 401
    assert ask(URL, "/v1/completions", b"{", KEY).status == 400


def test_there_are_two_replicas() -> None:
    state = serve.status().applications["default"].deployments["Replica"]
    assert state.replica_states == {"RUNNING": 2}
    assert json.loads(ask(URL, "/health", headers=KEY).data) == {"status": "ok"}
    assert Path(exported()).is_dir()
