"""Log lines go where the settings say, without what looks like a secret."""

import logging
import sys
from pathlib import Path

import pytest

from opus_api import logs
from opus_api.config import ConfigError, Settings


@pytest.mark.parametrize(
    "message, line",
    [
        ("key sk-opus-abcdefghijklmnop failed", "key *** failed"),
        ("key sk-ant-api03-abc_def-ghi failed", "key *** failed"),
        ("Authorization: Bearer abc.def-ghi", "Authorization: Bearer ***"),
        ("token eyJhbGciOi.eyJzdWIi.c2lnbmF0dXJl!", "token ***!"),
        ("postgresql://opus:hunter22@db/opus", "postgresql://opus:***@db/opus"),
        ("http://user:p@ss@proxy:3128 refused", "http://user:***@proxy:3128 refused"),
        ("see https://api.example:8443/v1", "see https://api.example:8443/v1"),
        ("nothing to hide: a-b_c", "nothing to hide: a-b_c"),
    ],
)
def test_what_looks_like_a_secret_is_masked(message: str, line: str) -> None:
    record = logging.LogRecord("opus_api", logging.INFO, "", 0, message, None, None)
    assert logs.Redacting("%(message)s").format(record) == line


def test_tracebacks_are_masked_too() -> None:
    try:
        raise ValueError("sk-opus-abcdefghijklmnop")
    except ValueError:
        record = logging.LogRecord("opus_api", logging.ERROR, "", 0, "failed", None, sys.exc_info())
    text = logs.Redacting("%(message)s").format(record)
    assert "ValueError: ***" in text


def test_a_folder_of_its_own_is_made(tmp_path: Path) -> None:
    logs.configure(Settings(log_dir=str(tmp_path / "logs"), log_level="warning"))
    logging.getLogger("opus_api.somewhere").warning("a line")
    logging.getLogger("opus_api.somewhere").info("less")
    text = (tmp_path / "logs" / "opus-api.log").read_text()
    logs.configure(Settings())
    assert text.endswith("WARNING opus_api.somewhere: a line\n")
    assert text.count("\n") == 1


def test_a_folder_that_cannot_be_made_is_one_sentence() -> None:
    with pytest.raises(ConfigError, match="LOG_DIR /proc/none cannot be written"):
        logs.configure(Settings(log_dir="/proc/none"))
    logs.configure(Settings())
