"""Metrics: the names of vLLM, and values that fit what was counted."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from prometheus_client.parser import text_string_to_metric_families

from lime_edge.server.operations.server_metrics import ServerMetrics
from tests.server.served import NAME, ask, chat, running, settled, shared

NAMES = {
    "vllm:num_requests_running",
    "vllm:num_requests_waiting",
    "vllm:kv_cache_usage_perc",
    "vllm:prefix_cache_queries",
    "vllm:prefix_cache_hits",
    "vllm:time_to_first_token_seconds",
    "vllm:inter_token_latency_seconds",
    "vllm:e2e_request_latency_seconds",
    "vllm:request_success",
    "vllm:prompt_tokens",
    "vllm:generation_tokens",
    "vllm:lora_requests_info",
    "lime:requests_refused",
    "lime:skill_load_failures",
}


def values(page: str) -> dict[str, float]:
    """Sample name and labels besides the model's -> value."""
    found = {}
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            labels = ",".join(f"{k}={v}" for k, v in sorted(sample.labels.items()) if k not in ("model_name", "le"))
            if "le" not in sample.labels:
                found[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return found


def test_what_balancers_read() -> None:
    stats = SimpleNamespace(
        running=2,
        waiting=1,
        rows=8,
        kv_usage=0.25,
        prefix_queries=100,
        prefix_hits=40,
        running_by_skill={"legal": 1, "brief": 1, "": 3},
        waiting_by_skill={"legal": 1},
    )
    metrics = ServerMetrics("tiny", lambda: stats, lambda: 3)
    metrics.ended("stop", 7, 5)
    metrics.refused(404)
    families = {family.name: family for family in text_string_to_metric_families(metrics.page().decode())}
    assert families.keys() >= NAMES
    labels = families["vllm:lora_requests_info"].samples[0].labels
    assert labels == {"running_lora_adapters": "brief,legal", "waiting_lora_adapters": "legal", "max_lora": "8"}
    assert families["vllm:num_requests_running"].samples[0].labels == {"model_name": "tiny"}
    found = values(metrics.page().decode())
    assert found["vllm:kv_cache_usage_perc"] == 0.25
    assert found["vllm:prefix_cache_hits_total"] == 40
    assert found["vllm:request_success_total{finished_reason=stop}"] == 1
    assert found["vllm:prompt_tokens_total"] == 7
    assert found["lime:requests_refused_total{status=404}"] == 1
    assert found["lime:skill_load_failures"] == 3


def test_of_a_server() -> None:
    with running() as url:
        for model in ("legal", NAME):
            assert chat(url, model, stream=True).status == 200
        assert chat(url, "nope").status == 404
        settled(shared())
        answer = ask(url, "/metrics")
        assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
        found = values(answer.data.decode())
    assert found["vllm:time_to_first_token_seconds_count"] == 2
    assert found["vllm:e2e_request_latency_seconds_count"] == 2
    assert sum(value for name, value in found.items() if name.startswith("vllm:request_success_total")) == 2
    tokens, between = found["vllm:generation_tokens_total"], found["vllm:inter_token_latency_seconds_count"]
    assert 0 < between < tokens
    assert found["lime:requests_refused_total{status=404}"] == 1
    assert found["vllm:num_requests_running"] == pytest.approx(0)
    assert found["vllm:e2e_request_latency_seconds_sum"] >= found["vllm:time_to_first_token_seconds_sum"] > 0
