"""How gunicorn serves the app: one gevent worker that holds thousands of streams."""

import gc

gc.disable()  # the master's, which only watches; its workers enable it (wsgi.py) when everything is loaded

from gevent import monkey

monkey.patch_all()

import importlib
import os
import resource
import shutil
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Any, NoReturn

import gevent.os

sys.path.insert(0, str(Path(__file__).resolve().parent))

from opus_api.config import ConfigError, load

try:
    settings = load()
except ConfigError as error:
    sys.exit(str(error))

bind = f"{f'[{settings.host}]' if ':' in settings.host else settings.host}:{settings.port}"
backlog = 4096
workers = settings.web_concurrency
worker_class = "opus_api.web.worker.Worker"
worker_connections = 4000  # a hard gate: more connections than this are not even accepted
timeout = 60
graceful_timeout = settings.graceful_timeout
keepalive = 10  # also how long a client may take for its headers
max_requests = 0  # replacing a worker makes a hole of seconds and cuts its long streams
header_map = "drop"
forwarder_headers = ""  # nobody sets SCRIPT_NAME or PATH_INFO from outside
limit_request_field_size = 16_380
forwarded_allow_ips = ",".join(str(network) for network in settings.trusted_proxies)
control_socket_disable = True  # it would be made in the home directory
accesslog = None
errorlog = "-"
loglevel = "debug" if settings.debug_mode else "warning"

# What takes longest to load and is not ours: the master does so once, for the check and for each worker that it forks.
LIBRARIES = ("flask_babel", "flask_sqlalchemy", "flask_wtf", "huey.api", "huey.consumer", "jwt", "psycopg2", "requests")


def on_starting(server: Any) -> None:
    """Before the master listens: refuse with one sentence what could only fail later, again and again."""
    inherited = {"GUNICORN_FD", "LISTEN_FDS"} & set(os.environ)
    addresses = [] if inherited else [address for address in server.cfg.address if isinstance(address, tuple)]
    for name in LIBRARIES:
        importlib.import_module(name)
    _check_in_a_process_of_its_own(server.cfg.workers, addresses)
    _raise_file_limit()
    # Each worker keeps its counters there, for whichever is asked for /metrics; set before prometheus_client is loaded.
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = tempfile.mkdtemp(prefix="opus-metrics-")
    from opus_api.web.worker import Generations  # after the check, which says in one sentence what is wrong

    server.generations = Generations()


def pre_fork(server: Any, worker: Any) -> None:
    worker.generations = server.generations
    worker.generations.begin(worker.age)


def _check_in_a_process_of_its_own(workers: int, addresses: list[tuple[str, int]]) -> None:
    # Workers inherit what the master has: it must neither open connections nor load code that a reload should replace,
    # such as listeners, which would then hear everything twice. A fork need not load again what the master has.
    child = gevent.os.fork_gevent()  # os.fork would have gevent watch the master's children, which gunicorn does
    if child == 0:
        _check_and_exit(workers, addresses)
    if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]):
        sys.exit(1)


def _check_and_exit(workers: int, addresses: list[tuple[str, int]]) -> NoReturn:
    code = 1
    try:
        from opus_api import preflight

        preflight.check_before_workers(settings, workers, addresses)
        code = 0
    except ConfigError as error:
        sys.stderr.write(f"{error}\n")
    except Exception:  # noqa: BLE001 - a fault of ours; nothing but the master goes on from here
        traceback.print_exc()
    finally:
        os._exit(code)


def _raise_file_limit() -> None:
    """A stream takes two file descriptors; the usual soft limit of 1024 ends at 500 streams."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 1_048_576 if hard == resource.RLIM_INFINITY else min(hard, 1_048_576)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    except (ValueError, OSError) as error:  # macOS has a lower limit of its own
        sys.stderr.write(f"The limit of open files stays as it is ({error}).\n")


def child_exit(server: Any, worker: Any) -> None:
    """What a dead worker had on its way is not live any more; its counters stay."""
    for file in Path(os.environ["PROMETHEUS_MULTIPROC_DIR"]).glob(f"gauge_live*_{worker.pid}.db"):
        file.unlink(missing_ok=True)


def on_exit(server: Any) -> None:
    shutil.rmtree(os.environ.get("PROMETHEUS_MULTIPROC_DIR", ""), ignore_errors=True)  # unset: it never began


def when_ready(server: Any) -> None:
    """The master keeps none of our code (settings, worker): after HUP, workers must find what is on the disk then."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "opus_api"]:
        del sys.modules[name]


on_reload = when_ready


def _redact_what_others_print() -> None:
    """gunicorn and gevent print tracebacks of their own."""
    import logging

    from opus_api import logs  # not at the top, where it would stay in the master

    logs.redact(logging.getLogger("gunicorn.error"))
    gevent.get_hub().exception_stream = logs.RedactingStream(sys.stderr)


def post_worker_init(worker: Any) -> None:
    from opus_api import logs

    logs.to_stdout()
    _redact_what_others_print()
    worker.app.callable.extensions["state"].start()
    worker.app.callable.extensions["snapshots"].start()
    _watch_the_other_generation(worker)
    worker.app.callable.extensions["recorder"].start()
    _start_jobs(worker.app.callable)
    gevent.spawn(_drain_when_stopping, worker)
    _watch_the_hub()
    # What is loaded by now stays: no collection need look at it again.
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 50)  # seldom, and yet not long: 50,000 young objects take 20 ms to look at
    worker.generations.serve(worker.age)


def _watch_the_other_generation(worker: Any) -> None:
    """At a reload two workers serve at once for a while; without Redis the database is all that they share."""
    if not settings.redis_url:
        worker.app.callable.extensions["snapshots"].watch_closely(worker.cfg.graceful_timeout + 10)


def _start_jobs(app: Any) -> None:
    from opus_api.jobs import Jobs  # here, not at its first need: huey takes half a second to load

    app.extensions["jobs"] = Jobs(app)
    app.extensions["jobs"].start()


def _watch_the_hub() -> None:
    from opus_api.hub import HubWatch  # not at the top, where it would stay in the master

    HubWatch().start()


def _drain_when_stopping(worker: Any) -> None:
    """gunicorn would cut streams raw at graceful_timeout; a few seconds before it they end in their protocol.

    The worker leaves by itself before that, when nobody is connected any more.
    """
    while worker.alive:
        gevent.sleep(0.2)
    _watch_the_other_generation(worker)
    # Another worker, or the next, goes on with them at once. Streams do not wait for a database that is away.
    gevent.spawn(worker.app.callable.extensions["jobs"].stop)
    limit = worker.cfg.graceful_timeout
    gevent.sleep(max(limit - 5, limit / 2))
    worker.app.callable.extensions["gateway"].end()
    worker.hang_up()


def worker_exit(server: Any, worker: Any) -> None:
    app = getattr(worker.app, "callable", None)
    if app is not None:
        if "jobs" in app.extensions:
            app.extensions["jobs"].stop()
        app.extensions["snapshots"].stop()
        app.extensions["recorder"].stop()
        app.extensions["state"].stop()
