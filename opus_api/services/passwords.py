"""Passwords: which are good enough, and hashing them without stopping the streams of everybody else."""

from functools import cache
from pathlib import Path

import gevent
from gevent.lock import BoundedSemaphore
from werkzeug.security import check_password_hash, generate_password_hash

from opus_api.services.values import FieldError
from opus_api.wire.errors import Phrase

SHORTEST, LONGEST = 8, 1024  # characters; no other rule (ASVS 5.0 6.2)

# It takes 80 ms and 32 MiB; two at once leave a core and memory for streams.
METHOD = "scrypt:32768:8:1"
_at_once = BoundedSemaphore(2)

# Somebody unknown signs in as slowly as somebody known: by salt and hash of a password that nobody has.
NOBODY = f"{'A' * 16}${'0' * 128}"


@cache
def common() -> frozenset[str]:
    """The passwords that guessing starts with, in lower case."""
    lines = (Path(__file__).parent / "common_passwords.txt").read_text(encoding="utf-8").splitlines()
    return frozenset(line.strip() for line in lines if line.strip() and not line.startswith("#"))


def is_weak(password: str) -> bool:
    """Short, or one that everybody tries; ``changeme123`` and ``admin`` are among them."""
    return len(password) < SHORTEST or password.lower() in common()


def check(field: str, password: object) -> str:
    """A password that somebody chose. Raises FieldError."""
    if not isinstance(password, str) or not password:
        raise FieldError(field, "is required.")
    if len(password) < SHORTEST:
        raise FieldError(field, Phrase("must be at least %(n)s characters.", n=SHORTEST))
    if len(password) > LONGEST:
        raise FieldError(field, Phrase("must be at most %(n)s characters.", n=LONGEST))
    if is_weak(password):
        raise FieldError(field, "is one of the most common passwords; choose another.")
    return password


def hashed(password: str) -> str:
    with _at_once:
        return str(gevent.get_hub().threadpool.apply(generate_password_hash, (password, METHOD)))


def fits(password_hash: str | None, password: str) -> bool:
    """``password_hash`` is None when there is no such user; that takes as long, and so does what is too long to be a
    password."""
    known = password_hash or f"{METHOD}${NOBODY}"
    with _at_once:
        right = gevent.get_hub().threadpool.apply(check_password_hash, (known, password[:LONGEST]))
    return bool(right) and password_hash is not None and len(password) <= LONGEST
