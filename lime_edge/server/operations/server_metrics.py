"""Metrics for Prometheus, under the names of vLLM, which dashboards and load balancers know."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Protocol

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

MODEL = "model_name"
_FIRST = (0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80)
_BETWEEN = (0.002, 0.004, 0.006, 0.008, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1)
_WHOLE = (0.02, 0.05, 0.1, 0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240)


class Stats(Protocol):
    """What the scheduler tells of itself."""

    @property
    def running(self) -> int: ...
    @property
    def waiting(self) -> int: ...
    @property
    def rows(self) -> int: ...
    @property
    def kv_usage(self) -> float: ...
    @property
    def prefix_queries(self) -> int: ...
    @property
    def prefix_hits(self) -> int: ...
    @property
    def running_by_skill(self) -> Mapping[str, int]: ...
    @property
    def waiting_by_skill(self) -> Mapping[str, int]: ...


class ServerMetrics:
    """The metrics of one server.

    Args:
        model: The name of the base: the label of all metrics.
        stats: Reads the state of the scheduler.
        faults: Reads how many skills were found but could not be loaded.
    """

    def __init__(self, model: str, stats: Callable[[], Stats], faults: Callable[[], int]) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_Gauges(model, stats, faults))

        def histogram(name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
            made = Histogram(f"vllm:{name}", text, (MODEL,), buckets=buckets, registry=self._registry)
            return made.labels(model)

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(name, text, (MODEL, *labels), registry=self._registry)

        self.first_token = histogram("time_to_first_token_seconds", "From the request to its first token.", _FIRST)
        self.between_tokens = histogram("inter_token_latency_seconds", "From a token to the next one.", _BETWEEN)
        self.whole_request = histogram("e2e_request_latency_seconds", "From the request to its last token.", _WHOLE)
        self._success = counter("vllm:request_success", "Answers that ended.", "finished_reason")
        self._prompt = counter("vllm:prompt_tokens", "Tokens of prompts.").labels(model)
        self._generated = counter("vllm:generation_tokens", "Tokens of answers.").labels(model)
        self._refused = counter("lime:requests_refused", "Requests that were answered with an error.", "status")
        self._model = model

    def ended(self, reason: str, prompt_tokens: int, new_tokens: int) -> None:
        """Count an answer."""
        self._success.labels(self._model, reason).inc()
        self._prompt.inc(prompt_tokens)
        self._generated.inc(new_tokens)

    def refused(self, status: int) -> None:
        """Count an error."""
        self._refused.labels(self._model, str(status)).inc()

    def page(self) -> bytes:
        """The text that Prometheus reads."""
        return generate_latest(self._registry)


class _Gauges(Collector):
    """What is read when somebody asks for the metrics."""

    def __init__(self, model: str, stats: Callable[[], Stats], faults: Callable[[], int]) -> None:
        self._model, self._stats, self._faults = model, stats, faults

    def describe(self) -> Iterator[Metric]:
        """Nothing: registering asks for no value."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        stats = self._stats()
        gauges = {
            "vllm:num_requests_running": ("Answers that are being generated.", stats.running),
            "vllm:num_requests_waiting": ("Requests that wait for a row.", stats.waiting),
            "vllm:kv_cache_usage_perc": ("Share of the memory for keys and values in use, 0 to 1.", stats.kv_usage),
            "lime:skill_load_failures": ("Skills that were found but could not be loaded.", self._faults()),
        }
        for name, (text, value) in gauges.items():
            gauge = GaugeMetricFamily(name, text, labels=(MODEL,))
            gauge.add_metric((self._model,), value)
            yield gauge
        counters = {
            "vllm:prefix_cache_queries": ("Prompt tokens that were looked up.", stats.prefix_queries),
            "vllm:prefix_cache_hits": ("Prompt tokens that were not read again.", stats.prefix_hits),
        }
        for name, (text, value) in counters.items():
            counter = CounterMetricFamily(name, text, labels=(MODEL,))
            counter.add_metric((self._model,), value)
            yield counter
        yield self._skills(stats)

    def _skills(self, stats: Stats) -> Metric:
        """The skills in use, as load balancers that know adapters read them; the value is the time."""
        labels = ("running_lora_adapters", "waiting_lora_adapters", "max_lora")
        info = GaugeMetricFamily("vllm:lora_requests_info", "Skills of running and waiting requests.", labels=labels)
        counts = (stats.running_by_skill, stats.waiting_by_skill)
        running, waiting = (",".join(sorted(filter(None, one))) for one in counts)  # without the base
        info.add_metric((running, waiting, str(stats.rows)), time.time())
        return info
