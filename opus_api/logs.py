"""Where log lines go, and what never gets into them."""

import json
import logging
import re
import sys
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from functools import lru_cache
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import TextIO
from urllib.parse import quote, unquote

from opus_api.config import ConfigError, Settings

FILE_SIZE, FILES = 10 * 1024 * 1024, 5

# Shapes of secrets, wherever a message or a traceback may have picked one up.
SECRET_SHAPES = re.compile(
    r"(?P<scheme>\b(?:Bearer|Basic)\s+)[^\s'\"]+"
    r"|(?P<login>://[^\s:/@]*:)[^\s/]+(?=@)"  # a password in an address
    r"|\bsk-[A-Za-z0-9_-]{8,}"  # API keys, ours and the providers'
    r"|\beyJ[\w-]+\.[\w-]+\.[\w-]*"  # JWTs
    r"|(?P<named>\b(?:x-api-key|(?:proxy-)?authorization|(?:set-)?cookie|password|passwd"
    r"|(?:api|session|secret)[_-]key|client[_-]secret|(?:refresh|access)[_-]token)['\"]?\s*[:=]\s*['\"]?"
    r"(?!(?:Bearer|Basic)\s))[^\s'\",;&}]+",  # the value of a header or a field
    re.IGNORECASE,
)
SHORTEST = 8  # characters: masking anything shorter would leave no line readable

_live: dict[str, frozenset[str]] = {}


def hide(owner: str, values: Iterable[str]) -> None:
    """Mask these values wherever they stand, in place of those that ``owner`` gave before: a vendor's credential may
    look like anything."""
    _live[owner] = frozenset(values)


@lru_cache(maxsize=8)
def _forms(values: frozenset[str]) -> tuple[str, ...]:
    """Each as it is, in an address, in JSON; found out when the first line is written after a change."""
    long = [value for value in values if len(value) >= SHORTEST]
    return tuple({form for value in long for form in (value, quote(value, safe=""), json.dumps(value)[1:-1])})


def password_in(url: str) -> str:
    """Of an address such as ``http://user:password@host``; "" without one."""
    login = re.match(r"[\w+.-]+://([^/?#]*)@", url)  # not urlsplit: what is no address at all has no password
    return unquote(login[1].partition(":")[2]) if login else ""


def redacted(text: str) -> str:
    """With *** for the secrets that are known and for what looks like one."""
    for values in _live.values():
        for form in _forms(values):
            if form in text:
                text = text.replace(form, "***")
    return SECRET_SHAPES.sub(lambda found: f"{found['scheme'] or found['login'] or found['named'] or ''}***", text)


class Redacting(logging.Formatter):
    """Masks what looks like a secret, in tracebacks too, and keeps one record on as many lines as it has."""

    def format(self, record: logging.LogRecord) -> str:
        return redacted(super().format(record))


class JsonLines(Redacting):
    """One line of JSON in ASCII a record: whatever a client got into a message, it neither ends the line nor reaches
    the terminal of who reads it."""

    def format(self, record: logging.LogRecord) -> str:
        said = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": redacted(record.getMessage()),
        }
        if record.exc_info:
            said["exception"] = redacted(self.formatException(record.exc_info))
        return json.dumps(said)


class RedactingStream:
    """For what writes tracebacks by itself, such as gevent's hub."""

    def __init__(self, stream: TextIO):
        self._stream = stream

    def write(self, text: str) -> int:
        return self._stream.write(redacted(text))

    def flush(self) -> None:
        self._stream.flush()


def redact(logger: logging.Logger) -> None:
    """The same for the handlers of a logger that somebody else has set up: gunicorn's."""
    for handler in logger.handlers:
        form = handler.formatter
        handler.setFormatter(Redacting(form._fmt, form.datefmt) if form else Redacting())


def _secrets_of(settings: Settings) -> Iterator[str]:
    yield from (settings.jwt_secret, settings.secret_key, settings.default_admin_password, *settings.encryption_keys)
    for url in (settings.database_url, settings.redis_url, settings.http_proxy, settings.https_proxy):
        yield password_in(url)


def configure(settings: Settings) -> None:
    """Standard error, and a file when LOG_DIR is set. Raises ConfigError when that cannot be written.

    Commands print their results on standard output; workers move their lines there by ``to_stdout``.
    """
    hide("settings", _secrets_of(settings))
    logger = logging.getLogger("opus_api")
    logger.setLevel("DEBUG" if settings.debug_mode else settings.log_level.upper())
    logger.propagate = False
    for handler in [*logger.handlers]:
        logger.removeHandler(handler)
        handler.close()
    for handler in (logging.StreamHandler(), *_file(settings)):
        handler.setFormatter(JsonLines())
        logger.addHandler(handler)
    logging.raiseExceptions = False  # a full disk must not fail requests


def to_stdout() -> None:
    """In a worker, whose output is nothing but its log."""
    for handler in logging.getLogger("opus_api").handlers:
        if type(handler) is logging.StreamHandler:
            handler.stream = sys.stdout  # setStream would flush standard error first, which may be full or closed


def _file(settings: Settings) -> list[logging.Handler]:
    if not settings.log_dir:
        return []
    path = Path(settings.log_dir).expanduser() / "opus-api.log"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return [RotatingFileHandler(path, maxBytes=FILE_SIZE, backupCount=FILES, encoding="utf-8")]
    except OSError as error:
        raise ConfigError(f"LOG_DIR {path.parent} cannot be written ({error.strerror}); make it writable.") from None
