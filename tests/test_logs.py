"""Log lines go where the settings say, without what looks like a secret."""

import io
import json
import logging
import sys
from collections.abc import Callable, Iterator
from datetime import datetime
from functools import partial
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis.strategies import sampled_from, text

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
        ("Proxy-Authorization: Basic dXNlcjpodW50ZXIyMg==", "Proxy-Authorization: Basic ***"),
        ("{'x-api-key': 'plain-value'}", "{'x-api-key': '***'}"),
        ('{"password": "hunter22", "name": "x"}', '{"password": "***", "name": "x"}'),
        ("refresh_token=abc&client_id=x", "refresh_token=***&client_id=x"),
        ("Cookie: opus=abc; theme=dark", "Cookie: ***; theme=dark"),
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


@pytest.fixture
def known() -> Iterator[str]:
    secret = 'a/b"c vendor+words'
    logs.hide("tests", ["short", secret])
    yield secret
    logs.hide("tests", [])


@pytest.mark.parametrize("written", [str, partial(quote, safe=""), lambda text: json.dumps(text)[1:-1]])
def test_a_secret_that_is_known_is_masked_however_it_looks_and_is_written(
    known: str, written: Callable[[str], str]
) -> None:
    assert logs.redacted(f"<{written(known)}>") == "<***>"
    assert logs.redacted("short") == "short"  # or no line could be read


@settings(max_examples=200, deadline=None)
@given(
    text(min_size=logs.SHORTEST, max_size=60).filter(lambda secret: "*" not in secret),
    text(),
    sampled_from([str, quote]),
)
def test_no_secret_that_is_known_is_ever_left(secret: str, around: str, written: Callable[[str], str]) -> None:
    logs.hide("tests", [secret])
    try:
        assert secret not in logs.redacted(f"{around}{written(secret)}{around}{secret}")
    finally:
        logs.hide("tests", [])


@pytest.mark.parametrize(
    "url, password",
    [
        ("http://user:p%40ss@proxy:3128", "p@ss"),
        ("postgresql://opus:a:b@db/opus", "a:b"),
        ("http://proxy:3128/x@y", ""),
        ("http://[", ""),
        ("", ""),
    ],
)
def test_the_password_of_an_address_is_found(url: str, password: str) -> None:
    assert logs.password_in(url) == password


def test_what_gunicorn_and_gevent_print_is_masked_too(known: str) -> None:
    logger, written = logging.getLogger("gunicorn.of-this-test"), io.StringIO()
    handler = logging.StreamHandler(written)
    handler.setFormatter(logging.Formatter("[gunicorn] %(message)s"))
    logger.addHandler(handler)
    logs.redact(logger)
    logger.error("failed with %s", known)
    logs.RedactingStream(written).write(f"ValueError: {known}\n")
    assert written.getvalue() == "[gunicorn] failed with ***\nValueError: ***\n"


def test_a_folder_of_its_own_is_made(tmp_path: Path) -> None:
    logs.configure(Settings(log_dir=str(tmp_path / "logs"), log_level="warning"))
    logging.getLogger("opus_api.somewhere").warning("a line")
    logging.getLogger("opus_api.somewhere").info("less")
    text = (tmp_path / "logs" / "opus-api.log").read_text()
    logs.configure(Settings())
    assert text.count("\n") == 1
    line = json.loads(text)
    assert (line["level"], line["logger"], line["message"]) == ("warning", "opus_api.somewhere", "a line")
    assert datetime.fromisoformat(line["time"]).tzinfo is not None


def test_what_clients_say_stays_on_its_line_and_controls_no_terminal() -> None:
    hostile = "a\nlevel: critical\x1b[2J\x9b31m\u2028\u202e sk-opus-abcdefghijklmnop"
    try:
        raise ValueError(hostile)
    except ValueError:
        record = logging.LogRecord("opus_api", logging.ERROR, "", 0, "failed: %s", (hostile,), sys.exc_info())
    line = logs.JsonLines().format(record)
    assert line.isascii()
    assert line.isprintable()
    assert "abcdefghijklmnop" not in line
    assert json.loads(line)["message"] == "failed: " + hostile.replace("sk-opus-abcdefghijklmnop", "***")
    assert "ValueError" in json.loads(line)["exception"]


def test_a_folder_that_cannot_be_made_is_one_sentence() -> None:
    with pytest.raises(ConfigError, match="LOG_DIR /proc/none cannot be written"):
        logs.configure(Settings(log_dir="/proc/none"))
    logs.configure(Settings())
