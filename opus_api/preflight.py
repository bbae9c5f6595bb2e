"""What must hold before the service starts; each fault is one sentence for the operator.

gunicorn's master runs this beside itself, so it loads no more of the service than it looks at.
"""

import socket
from collections.abc import Iterable

import sqlalchemy as sa
from sqlalchemy.orm import Session

from opus_api import crypto, database, state
from opus_api.config import ConfigError, Settings
from opus_api.services.settings import installation


def check_state(workers: int, redis_url: str) -> None:
    """Raises ConfigError when several workers could not share what they must, or Redis does not answer."""
    if workers > 1 and not redis_url:
        raise ConfigError(
            f"{workers} workers (WEB_CONCURRENCY) must share what they know; set REDIS_URL, e.g. redis://localhost:6379/0."
        )
    if redis_url and not state.answers(redis_url):
        raise ConfigError("Redis does not answer at REDIS_URL; start it, or correct the address, user or password.")


def check_free(host: str, port: int) -> None:
    """Raises ConfigError when somebody listens there."""
    host = host.strip("[]")
    try:
        family = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0][0]
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as gunicorn does: a closed one may linger
            probe.bind((host, port))
    except OSError as error:
        reason = error.strerror or str(error)
        raise ConfigError(f"Port {port} on {host} cannot be used ({reason}); set PORT or HOST to another.") from None


def check_before_workers(settings: Settings, workers: int, addresses: Iterable[tuple[str, int]]) -> None:
    """What a worker will need, looked at before there is one. ``addresses``: host and port of each to listen at.

    Raises ConfigError.
    """
    check_state(workers, settings.redis_url)
    for host, port in addresses:
        check_free(host, port)
    database.make_folder(settings)
    crypto.use(crypto.keyring(settings))
    engine = sa.create_engine(settings.database_url, **database.engine_options(settings.database_url))
    database.prepare(engine)
    database.check(engine)
    if not database.has_tables(engine):
        raise ConfigError("The database has no tables yet; run: flask db upgrade")
    with Session(engine) as session:
        installation(session)
