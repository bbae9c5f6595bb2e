"""How many examples hypothesis tries: 100 each by default, always the same ones; HYPOTHESIS_PROFILE=soak tries 20,000
new ones (SOAK_EXAMPLES changes that), and reports for bar 16 how many they were."""

import os
from collections import Counter
from collections.abc import Generator
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.statistics import collector

from tests import bars

COMMON = {
    "deadline": None,
    "database": None,
    "suppress_health_check": [HealthCheck.too_slow, HealthCheck.data_too_large],
}
PROFILE = os.environ.get("HYPOTHESIS_PROFILE", "default")

settings.register_profile("default", max_examples=50, derandomize=True, **COMMON)
settings.register_profile("soak", max_examples=int(os.environ.get("SOAK_EXAMPLES", "20000")), **COMMON)
settings.load_profile(PROFILE)

cases: Counter[str] = Counter()  # by test: examples that were tried, without those that its own conditions threw away


@pytest.hookimpl(wrapper=True, trylast=True)  # within hypothesis's own
def pytest_runtest_call(item: pytest.Item) -> Generator[None, Any, Any]:
    outer = collector.value

    def count(statistics: Any) -> None:
        phases = [phase for phase in statistics.values() if isinstance(phase, dict) and "test-cases" in phase]
        cases[item.nodeid] += sum(case["status"] != "invalid" for phase in phases for case in phase["test-cases"])
        if outer is not None:
            outer(statistics)

    with collector.with_value(count):
        return (yield)


def pytest_sessionfinish(session: pytest.Session) -> None:
    if PROFILE == "soak" and cases:
        figures = {"properties": len(cases), "cases": cases.total(), "failures": session.testsfailed}
        bars.keep(16, "make soak", **figures)
