"""A process whose greenlets all want the newer token of one account, as requests of a worker do.

    python -m tests.fakes.waiters ACCOUNT WAITERS

For each version that a line of standard input names it prints what the waiters got: {"token": how many}.
"""

from gevent import monkey

monkey.patch_all()

import json  # noqa: E402
import sys  # noqa: E402
from collections import Counter  # noqa: E402
from dataclasses import replace  # noqa: E402

import gevent  # noqa: E402
import sqlalchemy as sa  # noqa: E402

from opus_api import config, crypto, database  # noqa: E402
from opus_api.services.oidc import Tokens  # noqa: E402
from opus_api.transport import Transport  # noqa: E402
from opus_api.upstreams.base import Credentials, Failure  # noqa: E402


def main() -> None:
    account_id, waiters = int(sys.argv[1]), int(sys.argv[2])
    tokens = _tokens()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    for line in sys.stdin:
        seen = replace(Credentials(), token_version=int(line))
        greenlets = [gevent.spawn(_wait, tokens, account_id, seen) for _ in range(waiters)]
        gevent.joinall(greenlets)
        sys.stdout.write(json.dumps(Counter(greenlet.value for greenlet in greenlets)) + "\n")
        sys.stdout.flush()


def _tokens() -> Tokens:
    """As a worker has them, without all that it has besides and that takes a second to load."""
    settings = config.load()
    crypto.use(crypto.keyring(settings))
    database.make_psycopg2_cooperative()
    engine = sa.create_engine(settings.database_url, **database.engine_options(settings.database_url))
    database.prepare(engine)
    return Tokens(engine, Transport(settings))


def _wait(tokens: Tokens, account_id: int, seen: Credentials) -> str:
    try:
        return tokens.renewed(account_id, seen).access_token
    except Failure as failure:
        return f"failed: {failure.message}"


if __name__ == "__main__":
    main()
