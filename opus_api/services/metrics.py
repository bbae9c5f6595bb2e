"""What a monitor reads at /metrics: counters of requests, tokens, times and attempts, over all workers.

gunicorn.conf.py names a folder (PROMETHEUS_MULTIPROC_DIR) before this is loaded; there each worker keeps its counters,
and whichever is asked adds them up. Labels are bounded: names of models come from clients.
"""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from opus_api.services.explanations import Try
from opus_api.version import __version__

MOST_MODELS = 100  # names that are told apart
OTHERS, NONE = "other", ""
SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 900)

REGISTRY = CollectorRegistry()
REQUESTS = Counter(
    "opus_requests", "Requests that were let in.", ("dialect", "model", "status", "outcome"), registry=REGISTRY
)
TOKENS = Counter("opus_tokens", "Tokens of answers.", ("model", "kind"), registry=REGISTRY)
DURATION = Histogram(
    "opus_request_duration_seconds", "To the end of the answer.", ("dialect",), buckets=SECONDS, registry=REGISTRY
)
FIRST_TOKEN = Histogram(
    "opus_first_token_seconds", "To the first content.", ("dialect",), buckets=SECONDS, registry=REGISTRY
)
ATTEMPTS = Counter(
    "opus_upstream_attempts", "Attempts by what came of them.", ("provider", "result"), registry=REGISTRY
)
LATER_TURNS = Counter(
    "opus_later_turns",
    "Later turns of conversations: warm came to the account that had the turn before, with its prompt cache.",
    ("cache",),
    registry=REGISTRY,
)
REFUSED = Counter("opus_refused_requests", "Requests that were not let in.", ("status",), registry=REGISTRY)
DROPPED = Counter("opus_log_rows_dropped", "Rows of the request log that found no room.", registry=REGISTRY)
LIVE = Gauge("opus_live_requests", "Answers on their way.", registry=REGISTRY, multiprocess_mode="livesum")

KINDS = {
    "input_tokens": "input",
    "output_tokens": "output",
    "cache_read_input_tokens": "cache_read",
    "cache_creation_input_tokens": "cache_creation",
}


class Models:
    """Names of models as labels."""

    def __init__(self, most: int = MOST_MODELS) -> None:
        self._known: set[str] = set()
        self._most = most

    def label(self, name: str, answered: bool = True) -> str:
        """A name takes one of the places once it was ``answered``: who makes names up takes none away."""
        if name in self._known:
            return name
        if not answered or len(self._known) >= self._most:
            return OTHERS
        self._known.add(name)
        return name


models = Models()


def count(row: dict[str, object], tries: Iterable[Try] = ()) -> None:
    """A request that has ended: its row of the log, and the attempts that failed. One nobody was asked for has a name
    of a model that may be anything."""
    dialect = str(row["dialect"])
    provider = row.get("provider")
    model = models.label(str(row["model"]), row["outcome"] == "ok") if provider else NONE
    REQUESTS.labels(dialect, model, str(row["status"]), str(row["outcome"])).inc()
    for one in tries:
        ATTEMPTS.labels(one.provider, one.how).inc()
    if not provider:
        return
    if row["outcome"] == "ok":
        ATTEMPTS.labels(str(provider), "ok").inc()
    for column, kind in KINDS.items():
        if amount := row[column]:
            TOKENS.labels(model, kind).inc(float(str(amount)))
    DURATION.labels(dialect).observe(float(str(row["duration_ms"])) / 1000)
    if (first := row["first_token_ms"]) is not None:
        FIRST_TOKEN.labels(dialect).observe(float(str(first)) / 1000)


def live() -> int:
    """Answers on their way, over all workers of this machine."""
    if folder := os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
        files = [str(path) for path in Path(folder).glob("gauge_livesum_*.db") if _has_values(path)]
        found: Iterable[Metric] = MultiProcessCollector.merge(files, accumulate=True)  # type: ignore[no-untyped-call]
    else:
        found = LIVE.collect()
    return round(sum(sample.value for metric in found for sample in metric.samples))


def _has_values(file: Path) -> bool:
    """Not in the moment in which a worker makes it."""
    try:
        return file.stat().st_size > 0
    except FileNotFoundError:
        return False


class _Now(Collector):
    """What is looked up when somebody asks."""

    def __init__(self, accounts: dict[tuple[str, str], int], away: float):
        self._accounts = accounts
        self._away = away

    def collect(self) -> Iterator[GaugeMetricFamily]:
        accounts = GaugeMetricFamily("opus_accounts", "Accounts by state.", labels=("provider", "state"))
        for labels, number in sorted(self._accounts.items()):
            accounts.add_metric(labels, number)
        yield accounts
        away = GaugeMetricFamily("opus_state_away_seconds", "For so long Redis has been away.", value=self._away)
        yield away
        version = GaugeMetricFamily("opus_build_info", "Which version answers.", labels=("version",))
        version.add_metric((__version__,), 1)
        yield version


def text(accounts: dict[tuple[str, str], int], away: float) -> bytes:
    """All of it, as Prometheus reads it. ``accounts``: (provider, state) -> number."""
    asked = CollectorRegistry()
    asked.register(_Now(accounts, away))
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        MultiProcessCollector(asked)  # type: ignore[no-untyped-call]
        return generate_latest(asked)
    return generate_latest(REGISTRY) + generate_latest(asked)
