"""The official SDKs, in front of one gateway that has an account of each kind with the fake upstream."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.upstream import Upstream
from tests.live import Gateway, gateway


@pytest.fixture(scope="session")
def upstream() -> Iterator[Upstream]:
    fake = Upstream()
    yield fake
    fake.stop()


@pytest.fixture(scope="session")
def live(migrated: Path, upstream: Upstream) -> Iterator[Gateway]:
    with gateway(migrated) as running:
        yield running
