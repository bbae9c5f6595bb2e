"""The spool keeps rows in files: bounded, readable after any interruption, deleted only when stored."""

import json
import os
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from opus_api.services.spool import Row, Spool, estates

NOW = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)


def row(name: str, **more: Any) -> dict[str, Any]:
    return {"request_id": name, "time": NOW, "model": "m", **more}


def names(batches: Iterator[list[Row]]) -> list[list[str]]:
    return [[row["request_id"] for row in batch] for batch in batches]


def die(spool: Spool) -> None:
    """As the kernel does it."""
    for descriptor in (spool._file, spool._lock):
        os.close(descriptor)


def left(root: Path) -> list[list[str]]:
    found = []
    for estate in estates(root):
        found += names(estate.batches(500))
        estate.close()
    return found


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path / "spool")


def files(root: Path) -> list[Path]:
    return sorted(root.glob("spool/*/*"))


def test_nothing_is_made_before_the_first_row(spool: Spool, tmp_path: Path) -> None:
    assert names(spool.batches(5)) == []
    spool.sync()
    spool.close()
    assert list(tmp_path.iterdir()) == []


def test_a_row_comes_back_as_it_was(spool: Spool) -> None:
    odd = row("1", model="\ud800\0ä\n", uses=[[1, 2.5]], key_id=None, stream=True)
    spool.ended(odd)
    assert list(spool.batches(5)) == [[odd]]


def test_files_are_for_their_owner_alone(spool: Spool, tmp_path: Path) -> None:
    spool.ended(row("1"))
    (file,) = files(tmp_path)
    modes = [path.stat().st_mode & 0o777 for path in (file, file.parent, file.parent.parent)]
    assert modes == [0o600, 0o700, 0o700]


def test_rows_come_in_batches_and_their_file_goes_when_the_last_is_stored(spool: Spool, tmp_path: Path) -> None:
    for i in range(5):
        spool.ended(row(str(i)))
    batches = spool.batches(2)
    assert [len(next(batches)) for _ in range(3)] == [2, 2, 1]
    assert len(files(tmp_path)) == 1
    assert next(batches, None) is None
    assert files(tmp_path) == []
    assert not spool.waiting


def test_a_batch_that_could_not_be_stored_comes_again_and_those_before_do_not(spool: Spool) -> None:
    for i in range(5):
        spool.ended(row(str(i)))
    failing = spool.batches(2)
    next(failing)
    next(failing)
    failing.close()
    spool.ended(row("late"))
    assert names(spool.batches(2)) == [["2", "3"], ["4"], ["late"]]


def test_what_still_runs_survives_the_file_it_began_in(spool: Spool, tmp_path: Path) -> None:
    spool.began(row("long"))
    for i in range(3):
        spool.began(row(str(i)))
        spool.ended(row(str(i)))
        assert names(spool.batches(9)) == [[str(i)]]
    die(spool)
    assert left(tmp_path / "spool") == [["long"]]


def test_of_a_dead_worker_only_what_did_not_end_is_aborted(spool: Spool, tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        spool.began(row(name))
    spool.ended(row("b", outcome="ok"))
    assert list(estates(tmp_path / "spool")) == []  # it lives
    die(spool)
    (estate,) = estates(tmp_path / "spool")
    assert list(estates(tmp_path / "spool")) == []  # it is ours
    found = {row["request_id"]: row["outcome"] for batch in estate.batches(9) for row in batch}
    estate.close()
    assert found == {"a": "aborted", "b": "ok", "c": "aborted"}
    assert list((tmp_path / "spool").iterdir()) == []


@pytest.mark.parametrize("size", [0, 1, 30, -1])
def test_a_torn_line_is_ignored_and_all_others_are_kept(spool: Spool, tmp_path: Path, size: int) -> None:
    spool.ended(row("1"))
    whole = files(tmp_path)[0].read_bytes()
    os.write(spool._file, whole[:size] if size else b"\0" * 40)  # what a disk may show after the power failed
    os.write(spool._file, b"\n" + whole.replace(b'"1"', b'"2"'))
    die(spool)
    assert [name for batch in left(tmp_path / "spool") for name in batch if name != "1"] == ["2"]


def test_beyond_its_cap_it_takes_nothing_until_something_was_stored(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool", cap=2000, segment=500)
    taken = 0
    with suppress(OSError):
        while True:
            spool.ended(row(str(taken)))
            taken += 1
    with pytest.raises(OSError, match="the spool holds"):
        spool.ended(row("no room"))
    assert sum(path.stat().st_size for path in files(tmp_path)) <= 2000
    assert sum(map(len, names(spool.batches(7)))) == taken
    spool.ended(row("again"))
    assert names(spool.batches(7)) == [["again"]]


@contextmanager
def full_disk(beyond: int) -> Iterator[None]:
    """No file may grow beyond so many bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (beyond, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_on_a_full_disk_a_line_is_there_whole_or_not_at_all(spool: Spool, tmp_path: Path) -> None:
    taken = []
    with full_disk(1000):
        for i in range(50):
            with suppress(OSError):
                spool.ended(row(str(i)))
                taken.append(str(i))
    spool.ended(row("later"))
    lines = files(tmp_path)[0].read_bytes().splitlines()
    assert [json.loads(line)["end"]["request_id"] for line in lines] == [*taken, "later"]
    assert 5 < len(taken) < 50


def test_a_folder_that_cannot_be_made_is_an_error_for_each_row_and_heals(tmp_path: Path) -> None:
    (tmp_path / "spool").write_text("a file")
    spool = Spool(tmp_path / "spool")
    for _ in range(2):
        with pytest.raises(OSError):
            spool.ended(row("1"))
    (tmp_path / "spool").unlink()
    spool.ended(row("2"))
    assert names(spool.batches(5)) == [["2"]]


def test_after_a_sync_everything_written_is_on_the_disk(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda file: synced.append(os.fstat(file).st_size))
    for name in ("1", "2"):
        spool.ended(row(name))
        spool.sync()
    spool.sync()  # nothing new: the disk is left alone
    assert synced == [spool._size // 2, spool._size]


def test_a_segment_may_be_closed_while_its_disk_is_waited_for(spool: Spool) -> None:
    spool.ended(row("1"))

    def late(write: Callable[[], None]) -> None:
        assert names(spool.batches(5)) == [["1"]]
        spool.close()
        write()

    spool.sync(late)


def test_a_close_leaves_only_what_is_to_be_adopted(tmp_path: Path) -> None:
    root = tmp_path / "spool"
    for open_ones in (False, True):
        spool = Spool(root)
        spool.began(row("running"))
        spool.ended(row("done"))
        if not open_ones:
            spool.ended(row("running"))
        assert len(names(spool.batches(9))) == 1
        spool.close()
        assert len(list(root.iterdir())) == int(open_ones)
    assert left(root) == [["running"]]
