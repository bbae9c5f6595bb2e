"""Rows of the request log on their way to the database, in files that outlive a killed worker.

Each worker appends JSON lines to segments in a folder of its own and keeps that folder locked; the kernel lets go of
the lock when the worker dies, however it dies, and whoever takes it then owns what was left. ``{"start": row}`` is
written before a request's work begins, ``{"end": row}`` after it. A line is in the kernel's hands when ``_append``
returns, so `kill -9` loses none; ``sync`` takes it to the disk, for when the power fails.
"""

import errno
import fcntl
import json
import os
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from datetime import datetime
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

Row = Mapping[str, Any]  # a column's name -> JSON value; ``time`` is a datetime

CAP = 256 * 2**20  # bytes one worker may leave behind while the database is away, some 450,000 rows
SEGMENT = 4 * 2**20  # bytes after which another file is begun
ABORTED = {"status": 0, "outcome": "aborted"}  # nobody knows any more what the client saw


class Spool:
    """What this process writes. Nothing is made before the first row: most commands never have one."""

    def __init__(self, root: Path, cap: int = CAP, segment: int = SEGMENT):
        self._root = root
        self._cap = cap
        self._segment = segment
        self._folder: Path | None = None
        self._lock = self._file = -1
        self._number = 0
        self._size = self._ends = self._backlog = 0  # bytes and rows of the open segment, bytes of the closed ones
        self._closed: list[Path] = []
        self._stored = 0  # bytes of the first closed segment that the database has
        self._running: dict[str, bytes] = {}  # request id -> its start line
        self._unsynced = False

    def began(self, row: Row) -> None:
        """A request begins; should nothing more be heard of it, this is its row. Raises OSError."""
        line = _line("start", row)
        self._running[row["request_id"]] = line
        self._append(line)

    def ended(self, row: Row) -> None:
        """Raises OSError: there is no room for the row."""
        self._running.pop(row["request_id"], None)
        self._append(_line("end", row))
        self._ends += 1

    @property
    def waiting(self) -> bool:
        """Some row has yet to be stored."""
        return bool(self._closed or self._ends)

    def batches(self, most: int) -> Iterator[list[Row]]:
        """Rows to be stored, oldest first. Asking for the next says that the last are stored: their file may go."""
        rotated = False
        while True:
            if not self._closed or (not rotated and self._size >= self._segment):
                if rotated or not self._ends:
                    return
                self._rotate()
                rotated = True
            yield from self._of_first_segment(most)

    def sync(self, wait: Callable[[Callable[[], None]], None] = lambda write: write()) -> None:
        """Take what was written to the disk; ``wait`` does what takes long, in a thread perhaps. Raises OSError."""
        if self._unsynced and self._file >= 0:
            self._unsynced = False
            # Doubled before anybody waits: the segment may be closed meanwhile, and its number be another file's.
            wait(partial(_to_disk, os.dup(self._file)))

    def close(self) -> None:
        """Nothing more will come. What could not be stored, or did not end, is left to be adopted."""
        if self._folder is None:
            return
        if not self.waiting and not self._running:
            for file in self._folder.iterdir():
                file.unlink(missing_ok=True)
            self._folder.rmdir()
        for descriptor in (self._file, self._lock):
            if descriptor >= 0:
                os.close(descriptor)
        self.__init__(self._root, self._cap, self._segment)  # type: ignore[misc]

    # ---- writing

    def _append(self, line: bytes) -> None:
        if self._backlog + self._size + len(line) > self._cap:
            raise OSError(errno.EDQUOT, f"the spool holds {self._cap // 2**20} MiB already")
        if self._file < 0:
            self._open()
        written = os.write(self._file, line)
        if written < len(line):  # the disk is full: a part of a line would spoil the next one
            os.ftruncate(self._file, self._size)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._size += written
        self._unsynced = True

    def _open(self) -> None:
        if self._folder is None or not self._folder.exists():
            self._folder, self._lock = _claimed(self._root)
        self._number += 1
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL
        self._file = os.open(self._folder / f"{self._number:08}.jsonl", flags, 0o600)

    def _rotate(self) -> None:
        """Close the segment, so that it can be stored and deleted; what still runs begins again in the next one."""
        assert self._folder is not None
        os.close(self._file)
        self._closed.append(self._folder / f"{self._number:08}.jsonl")
        self._backlog += self._size
        self._file, self._size, self._ends = -1, 0, 0
        if self._running:
            with suppress(OSError):  # no room: only a worker that is killed now would leave a gap
                self._append(b"".join(self._running.values()))

    def _of_first_segment(self, most: int) -> Iterator[list[Row]]:
        path = self._closed[0]
        for lines, end in _lines(path, self._stored, most):
            if rows := [row for kind, row in lines if kind == "end"]:
                yield rows
            self._stored = end
        size = path.stat().st_size if path.exists() else 0
        path.unlink(missing_ok=True)
        self._backlog = max(0, self._backlog - size)
        self._closed.pop(0)
        self._stored = 0


class Estate:
    """What a dead worker left, locked for us."""

    def __init__(self, folder: Path, lock: int):
        self._folder = folder
        self._lock = lock

    def batches(self, most: int) -> Iterator[list[Row]]:
        """Its rows, then one for each request that it did not end; asking past the last deletes the folder."""
        segments = sorted(self._folder.glob("*.jsonl"))
        running: dict[str, Row] = {}
        for path in segments:
            for lines, _ in _lines(path, 0, most):
                running |= {row["request_id"]: row for kind, row in lines if kind == "start"}
                rows = [row for kind, row in lines if kind == "end"]
                for row in rows:
                    running.pop(row["request_id"], None)
                if rows:
                    yield rows
        cut: list[Row] = [{**row, **ABORTED} for row in running.values()]
        for first in range(0, len(cut), most):
            yield cut[first : first + most]
        for path in segments:
            path.unlink(missing_ok=True)
        self._folder.rmdir()

    def close(self) -> None:
        os.close(self._lock)


def estates(root: Path) -> Iterator[Estate]:
    """The folders under ``root`` whose workers are dead; close each."""
    for folder in sorted(root.iterdir()) if root.is_dir() else ():
        lock = _locked(folder)
        if lock is not None:
            yield Estate(folder, lock)


def _to_disk(file: int) -> None:
    try:
        os.fsync(file)
    finally:
        os.close(file)


def _claimed(root: Path) -> tuple[Path, int]:
    """A new folder, locked before anybody can find it. Raises OSError."""
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    name = f"{os.getpid()}-{secrets.token_hex(4)}"
    hidden, folder = root.with_name(f".{root.name}-{name}"), root / name
    hidden.mkdir(mode=0o700)
    lock = os.open(hidden, os.O_RDONLY | os.O_DIRECTORY)
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    hidden.rename(folder)
    return folder, lock


def _locked(folder: Path) -> int | None:
    """The lock of a folder whose worker is dead, None when it lives or another one was faster."""
    try:
        lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(lock), os.stat(folder)):
            return lock
    except OSError:
        pass
    os.close(lock)
    return None


# ---- lines


def _line(kind: str, row: Row) -> bytes:
    # ASCII: half a surrogate pair in a model's name must not stop the row.
    return json.dumps({kind: row}, separators=(",", ":"), default=datetime.isoformat).encode() + b"\n"


def _lines(path: Path, offset: int, most: int) -> Iterator[tuple[list[tuple[str, Row]], int]]:
    """(lines, where they end in the file), at most ``most`` at a time; a line that is torn or damaged is left out."""
    try:
        file = path.open("rb")
    except FileNotFoundError:  # somebody cleaned up
        return
    with file:
        file.seek(offset)
        while raw := list(islice(file, most)):
            offset += sum(map(len, raw))
            yield [found for line in raw if (found := _parsed(line))], offset


def _parsed(line: bytes) -> tuple[str, Row] | None:
    try:
        ((kind, row),) = json.loads(line).items()
        return kind, {**row, "time": datetime.fromisoformat(row["time"])}
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
