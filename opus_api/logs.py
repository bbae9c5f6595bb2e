"""Where log lines go, and what never gets into them."""

import logging
import re
from logging.handlers import RotatingFileHandler
from pathlib import Path

from opus_api.config import ConfigError, Settings

FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
FILE_SIZE, FILES = 10 * 1024 * 1024, 5

# Shapes of secrets, wherever a message or a traceback may have picked one up.
SECRET_SHAPES = re.compile(
    r"(?P<bearer>\bBearer\s+)[^\s'\"]+"
    r"|(?P<login>://[^\s:/@]*:)[^\s/]+(?=@)"  # a password in an address
    r"|\bsk-[A-Za-z0-9_-]{8,}"  # API keys, ours and the providers'
    r"|\beyJ[\w-]+\.[\w-]+\.[\w-]*",  # JWTs
    re.IGNORECASE,
)


def redacted(text: str) -> str:
    """With *** for what looks like a secret."""
    return SECRET_SHAPES.sub(lambda found: f"{found['bearer'] or found['login'] or ''}***", text)


class Redacting(logging.Formatter):
    """Masks what looks like a secret, in tracebacks too, and keeps one record on as many lines as it has."""

    def format(self, record: logging.LogRecord) -> str:
        return redacted(super().format(record))


def configure(settings: Settings) -> None:
    """Standard error, and a file when LOG_DIR is set. Raises ConfigError when that cannot be written."""
    logger = logging.getLogger("opus_api")
    logger.setLevel("DEBUG" if settings.debug_mode else settings.log_level.upper())
    logger.propagate = False
    for handler in [*logger.handlers]:
        logger.removeHandler(handler)
        handler.close()
    for handler in (logging.StreamHandler(), *_file(settings)):
        handler.setFormatter(Redacting(FORMAT))
        logger.addHandler(handler)
    logging.raiseExceptions = False  # a full disk must not fail requests


def _file(settings: Settings) -> list[logging.Handler]:
    if not settings.log_dir:
        return []
    path = Path(settings.log_dir).expanduser() / "opus-api.log"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return [RotatingFileHandler(path, maxBytes=FILE_SIZE, backupCount=FILES, encoding="utf-8")]
    except OSError as error:
        raise ConfigError(f"LOG_DIR {path.parent} cannot be written ({error.strerror}); make it writable.") from None
