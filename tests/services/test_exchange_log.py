"""What debug mode keeps on the disk, and what it costs while it is off."""

import os
import time
import timeit
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from opus_api.services import exchange_log
from opus_api.services.exchange_log import ExchangeLog, Face, faces, find, prune, read
from opus_api.upstreams.base import Credentials
from opus_api.wire.http import HttpRequest


def folder(root: Path, age: timedelta, size: int = 1) -> Path:
    made = root / f"{datetime.now(UTC) - age:%Y%m%dT%H%M%S}-req_{len(os.listdir(root))}"
    made.mkdir()
    (made / "client-in.http").write_bytes(b"x" * size)
    return made


def test_while_it_is_off_a_request_pays_for_one_comparison(tmp_path: Path) -> None:
    log = ExchangeLog(tmp_path / "exchanges")
    assert log.begin("req_1") is None
    assert not (tmp_path / "exchanges").exists()
    assert min(timeit.repeat(lambda: log.begin("req_1"), number=10_000, repeat=5)) / 10_000 < 5e-6


def test_the_oldest_go_when_there_are_too_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange_log, "MOST_EXCHANGES", 3)
    made = [folder(tmp_path, timedelta(minutes=age)) for age in range(5)]
    assert prune(tmp_path) == 2
    assert sorted(tmp_path.iterdir()) == sorted(made[:3])


def test_the_oldest_go_when_they_take_too_much_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange_log, "MOST_BYTES", 250)
    made = [folder(tmp_path, timedelta(minutes=age), 100) for age in range(5)]
    assert prune(tmp_path) == 3
    assert sorted(tmp_path.iterdir()) == sorted(made[:2])


def test_what_is_a_week_old_goes(tmp_path: Path) -> None:
    young, _ = folder(tmp_path, timedelta(days=6)), folder(tmp_path, timedelta(days=8))
    assert prune(tmp_path) == 1
    assert list(tmp_path.iterdir()) == [young]
    assert prune(tmp_path / "nothing") == 0


@pytest.mark.parametrize("name", ["req_1", "../../etc", "req_*", "", "req_1/.."])
def test_a_request_is_found_by_its_whole_id(tmp_path: Path, name: str) -> None:
    made = folder(tmp_path, timedelta())
    folder(tmp_path, timedelta())
    assert find(tmp_path, made.name.partition("-")[2]) == made
    assert (find(tmp_path, name) is not None) == (name == "req_1")


def test_a_full_disk_fails_no_request(tmp_path: Path) -> None:
    (tmp_path / "exchanges").write_text("in the way")
    log = ExchangeLog(tmp_path / "exchanges")
    log.until = time.time() + 60
    assert log.begin("req_1") is None
    log = ExchangeLog(tmp_path)
    log.until = time.time() + 60
    recording = log.begin("req_2")
    assert recording is not None
    next(tmp_path.glob("*-req_2")).rmdir()
    recording.client_in("POST", "/v1/messages", [("x-api-key", "sk")], b"{}")
    recording.upstream(object(), HttpRequest("POST", "https://a.test"), {}, Credentials())
    recording.close({})


def test_headers_stay_on_their_lines_and_bytes_as_they_are() -> None:
    face = Face("POST /", [("a", "1\r\nb: 2"), ("X-Amz-Security-Token", "abc")], b"\xff\x00")
    assert face.bytes(()) == b"POST /\na: 1  b: 2\nX-Amz-Security-Token: ***\n\n\xff\x00"


def test_faces_are_told_in_the_order_in_which_they_came_about(tmp_path: Path) -> None:
    kept = folder(tmp_path, timedelta())
    order = ["client-in", *(f"upstream-{way}-{n}" for n in (1, 2, 10) for way in ("out", "in")), "client-out"]
    for name in (*order, "upstream-in-0", "client", "upstream-out", "exchange"):
        (kept / f"{name}.http").write_bytes(name.encode())
    (kept / "client-in.http.part").write_bytes(b"half of it")
    assert faces(kept) == order
    assert [read(kept, name) for name in order] == [name.encode() for name in order]
    assert [read(kept, name) for name in ("exchange", "upstream-in-0", "client-in.http", "../x", "")] == [None] * 5
    assert faces(tmp_path / "gone") == []
    assert read(tmp_path / "gone", "client-in") is None
