"""What a server counts, under the names that the field uses: those of vLLM, with ``fleetcast:`` before them."""

from __future__ import annotations

from typing import Any, Final

from fleetcast.base.errors import MissingExtra
from fleetcast.runtime.llm.engine import Engine
from fleetcast.runtime.llm.requests import Iteration, Request

try:
    import prometheus_client as prometheus
except ImportError:
    raise MissingExtra("prometheus_client", "serve") from None

CONTENT_TYPE: Final[str] = prometheus.CONTENT_TYPE_LATEST
REASONS: Final = ("cancelled", "slow_reader", "shutdown", "engine", "refused")
"""Why a request that was taken ended without an answer."""
_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 80, 160, 640, 2560)
_TOKENS: Final = tuple(2**i for i in range(18))


class Metrics:
    """Counters of one server, in a registry of their own.

    Args:
        model: the name that it serves.
        engine: asked for its load as metrics are read.
    """

    def __init__(self, model: str, engine: Engine) -> None:
        self.registry = prometheus.CollectorRegistry()

        def made(kind: Any, name: str, about: str, *labels: str, **settings: Any) -> Any:
            found = kind(f"fleetcast:{name}", about, ("model_name", *labels), registry=self.registry, **settings)
            return found if labels else found.labels(model)

        def seconds(name: str, about: str) -> Any:
            return made(prometheus.Histogram, name, about, buckets=_SECONDS)

        def tokens(name: str, about: str) -> Any:
            return made(prometheus.Histogram, name, about, buckets=_TOKENS)

        line = engine.schedule
        for name, about, value in (
            ("num_requests_running", "Requests in the batch", lambda: len(line.running) + len(line.partial)),
            ("num_requests_waiting", "Requests that wait", lambda: len(line.waiting) + len(line.resumed)),
            ("kv_cache_usage_perc", "Share of KV cache blocks that requests hold, 0 to 1",
             lambda: line.claimed() / engine.blocks.count),
        ):  # fmt: skip
            made(prometheus.Gauge, name, about).set_function(value)
        self._engine = engine
        self._evicted = 0
        self._preemptions = made(prometheus.Counter, "num_preemptions", "Evictions from the KV cache")
        self._asked = made(prometheus.Counter, "prefix_cache_queries", "Prompt tokens looked for in the prefix cache")
        self._found = made(prometheus.Counter, "prefix_cache_hits", "Prompt tokens found in the prefix cache")
        self._drafted = made(prometheus.Counter, "spec_decode_num_draft_tokens", "Tokens drafted and checked")
        self._accepted = made(prometheus.Counter, "spec_decode_num_accepted_tokens", "Drafted tokens that were right")
        self._prompt = made(prometheus.Counter, "prompt_tokens", "Tokens of prompts of answered requests")
        self._generated = made(prometheus.Counter, "generation_tokens", "Tokens that came out")
        self._first = seconds("time_to_first_token_seconds", "From a request's arrival to its first token")
        self._gap = seconds("inter_token_latency_seconds", "Between two tokens of a request")
        self._per = seconds("request_time_per_output_token_seconds", "A request's mean time per token after the first")
        self._whole = seconds("e2e_request_latency_seconds", "From a request's arrival to its last token")
        self._prompts = tokens("request_prompt_tokens", "Tokens of a request's prompt")
        self._outputs = tokens("request_generation_tokens", "Tokens of a request's answer")
        self._pass = tokens("iteration_tokens_total", "Tokens of an iteration")
        answered = made(
            prometheus.Counter, "request_success", "Requests answered, by how they ended", "finished_reason"
        )
        self._answered = {reason: answered.labels(model, reason) for reason in ("stop", "length")}
        failed = made(prometheus.Counter, "request_failure", "Requests taken and not answered, by why", "reason")
        self._failed = {reason: failed.labels(model, reason) for reason in REASONS}
        self._refused = made(
            prometheus.Counter, "http_refusals", "HTTP requests refused or failed, by status", "status"
        )
        self._model = model

    def text(self) -> bytes:
        """Returns what Prometheus reads."""
        return bytes(prometheus.generate_latest(self.registry))

    def iteration(self, found: Iteration) -> None:
        """Counts an iteration."""
        self._pass.observe(found.decodes + found.prefill_tokens + found.drafted)
        self._drafted.inc(found.drafted)
        self._accepted.inc(found.accepted)
        if self._engine.preemptions != self._evicted:
            self._preemptions.inc(self._engine.preemptions - self._evicted)
            self._evicted = self._engine.preemptions

    def token(self, first: float | None, gap: float) -> None:
        """Counts a token: s since arrival where it is the first, and since the one before."""
        self._generated.inc()
        if first is None:
            self._gap.observe(gap)
        else:
            self._first.observe(first)

    def ended(self, finish: str, request: Request, count: int, cached: int | None, born: float, now: float) -> None:
        """Counts an answer that is whole, of ``count`` tokens; ``born`` and ``now`` are s of its clock."""
        self._answered[finish].inc()
        self._prompt.inc(request.prompt)
        self._prompts.observe(request.prompt)
        self._outputs.observe(count)
        self._whole.observe(now - born)
        if count > 1:
            self._per.observe((request.end - request.first) / (count - 1))
        if cached is not None:
            self._asked.inc(request.prompt)
            self._found.inc(cached)

    def failed(self, reason: str) -> None:
        """Counts a request that was taken and not answered."""
        self._failed[reason].inc()

    def refused(self, status: int) -> None:
        """Counts an HTTP request that was refused or failed before its answer began."""
        self._refused.labels(self._model, str(status)).inc()
