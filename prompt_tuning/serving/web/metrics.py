"""What an operator watches, in Prometheus' form."""

from collections.abc import Iterator, Sequence

import prometheus_client as prometheus
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from prompt_tuning.serving.rows import Row
from prompt_tuning.serving.service import Service

_SECONDS = (
  *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
  *(1.0, 2.5, 5.0, 10.0, 30.0, 60.0),
)
_NAME = "prompt_tuning"


class Metrics:
  """Counters of one server, in a registry of their own."""

  def __init__(self, service: Service):
    self.registry = prometheus.CollectorRegistry()
    self._requests = prometheus.Counter(
      f"{_NAME}_requests",
      "Requests that were answered.",
      ("route", "model", "status"),
      registry=self.registry,
    )
    self._tokens = {
      kind: prometheus.Counter(
        f"{_NAME}_{kind}_tokens",
        f"Tokens of {what}.",
        ("model",),
        registry=self.registry,
      )
      for kind, what in (
        ("prompt", "inputs, places of prompts included"),
        ("generated", "answers"),
      )
    }
    self._seconds = {
      kind: prometheus.Histogram(
        f"{_NAME}_{kind}_seconds",
        what,
        registry=self.registry,
        buckets=_SECONDS,
      )
      for kind, what in (
        ("queue", "From a request until its row decodes."),
        ("first_token", "From a request until its row's first token."),
        ("request", "From a request until its row has ended."),
      )
    }
    self.registry.register(_OfService(service))

  def answered(self, route: str, model: str, status: int) -> None:
    """A request was answered; `model` is a name that is served, or ''."""
    self._requests.labels(route, model, str(status)).inc()

  def used(self, model: str, read: int, rows: Sequence[Row]) -> dict[str, int]:
    """Counts what a request has used; the `usage` of its answer."""
    written = sum(len(row.ids) for row in rows)
    self._tokens["prompt"].labels(model).inc(read)
    self._tokens["generated"].labels(model).inc(written)
    for row in rows:
      times = row.times
      if times.ended and times.begun:
        self._seconds["queue"].observe(times.begun - times.asked)
        self._seconds["first_token"].observe(times.first - times.asked)
        self._seconds["request"].observe(times.ended - times.asked)
    return {
      "prompt_tokens": read,
      "completion_tokens": written,
      "total_tokens": read + written,
    }

  def text(self) -> bytes:
    """All of it."""
    return prometheus.generate_latest(self.registry)


class _OfService:
  """What the service counts itself, read when somebody asks."""

  def __init__(self, service: Service):
    self._service = service

  def collect(self) -> Iterator[GaugeMetricFamily | CounterMetricFamily]:
    service = self._service
    gauges = {
      "ready": ("Whether requests are taken.", int(service.is_ready)),
      "prompts_loaded": ("Prompts.", len(service.bank.named)),
    }
    counters = {
      "compilations_after_ready": (
        "Programs compiled since the server was ready.",
        service.compilations,
      ),
    }
    if service.is_ready:
      engine = service.engine
      counts = engine.counts
      gauges |= {
        "rows_running": ("Answers that are being written.", engine.running),
        "rows_waiting": ("Answers that wait.", engine.waiting),
      }
      counters |= {
        "steps": ("Steps of the engine.", counts.steps),
        "step_rows": ("Answers in all steps: a batch's size.", counts.rows),
        "inputs_encoded": ("Inputs that were encoded.", counts.encoded),
      }
    for name, (about, value) in gauges.items():
      yield GaugeMetricFamily(f"{_NAME}_{name}", about, value)
    for name, (about, value) in counters.items():
      yield CounterMetricFamily(f"{_NAME}_{name}", about, value)
