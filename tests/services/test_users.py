"""Users, their passwords and their sign-ins."""

from datetime import timedelta

import pytest
from flask import Flask

from opus_api.config import ROOT
from opus_api.extensions import db
from opus_api.models import Account, User, UserSession, now
from opus_api.services import passwords, users
from opus_api.services.login_throttle import LoginThrottle
from opus_api.services.values import FieldError
from opus_api.state.memory import MemoryState
from opus_api.wire.errors import Conflict, NotFound, RateLimited, Unauthorized
from tests.forms import PASSWORD

HERE = "192.0.2.1"
pytestmark = pytest.mark.usefixtures("app")


@pytest.fixture
def throttle() -> LoginThrottle:
    return LoginThrottle(MemoryState())


def test_a_user_signs_in_with_the_right_password_only(throttle: LoginThrottle) -> None:
    created = users.create("somebody", PASSWORD)
    assert PASSWORD not in created.password_hash
    assert users.authenticate("somebody", PASSWORD, HERE, throttle) is created
    for name, password in (("somebody", PASSWORD + "!"), ("nobody", PASSWORD), ("somebody", "")):
        with pytest.raises(Unauthorized, match="The user name or the password is wrong"):
            users.authenticate(name, password, HERE, throttle)


def test_a_password_is_compared_to_its_last_character(throttle: LoginThrottle) -> None:
    longest = "x" * passwords.LONGEST + "!"
    created = users.create("somebody", longest[:-1])
    assert users.authenticate("somebody", longest[:-1], HERE, throttle) is created
    with pytest.raises(Unauthorized):
        users.authenticate("somebody", longest, HERE, throttle)


@pytest.mark.usefixtures("passwords_of_real_work")
def test_somebody_unknown_takes_as_long_as_somebody_known(
    throttle: LoginThrottle, monkeypatch: pytest.MonkeyPatch
) -> None:
    checks: list[str] = []
    original = passwords.check_password_hash
    monkeypatch.setattr(passwords, "check_password_hash", lambda *given: checks.append(given[0]) or original(*given))
    with pytest.raises(Unauthorized):
        users.authenticate("nobody", PASSWORD, HERE, throttle)
    known = users.create("somebody", PASSWORD)
    assert [hash_.split("$")[0] for hash_ in checks] == [known.password_hash.split("$")[0]] == ["scrypt:32768:8:1"]


def test_a_service_hashes_with_the_work_that_keeps_guessers_out() -> None:
    source = (ROOT / "opus_api" / "services" / "passwords.py").read_text(encoding="utf-8")
    assert 'METHOD = "scrypt:32768:8:1"' in source  # here it is another one: see tests/conftest.py


@pytest.mark.parametrize(
    "password", ["", None, 5, "short77", "password", "PASSWORD123", "changeme123", "admin", "qwertyuiop", "x" * 1025]
)
def test_passwords_that_are_short_or_common_are_refused(password: object) -> None:
    with pytest.raises(FieldError, match=r"^password: "):
        users.create("somebody", password)


@pytest.mark.parametrize("password", ["12 chars long", "x" * 64, "密码密码密码密码", "x" * 1024, "      . "])
def test_any_other_password_is_taken(password: str, throttle: LoginThrottle) -> None:
    users.create("somebody", password)
    assert users.authenticate("somebody", password, HERE, throttle)


@pytest.mark.parametrize(
    "password, weak", [("changeme123", True), ("admin", True), ("seven77", True), (PASSWORD, False)]
)
def test_known_and_short_passwords_must_be_changed(password: str, weak: bool) -> None:
    assert passwords.is_weak(password) is weak


def test_user_names_are_unique() -> None:
    users.create("somebody", PASSWORD)
    with pytest.raises(Conflict, match="there is a user named 'somebody' already"):
        users.create("somebody", PASSWORD)


@pytest.mark.parametrize("name", ["", "  ", "x" * 81, "a\nb", None, 5])
def test_a_user_has_a_printable_name(name: object) -> None:
    with pytest.raises(FieldError, match=r"^username: "):
        users.create(name, PASSWORD)


def test_changing_the_password_ends_every_other_session(admin: User, throttle: LoginThrottle) -> None:
    here, token_here = users.start_session(admin, "jwt", HERE, None)
    _, token_there = users.start_session(admin, "page", HERE, None)
    users.change_password(admin, PASSWORD, "another good one", HERE, throttle, keep=here)
    assert users.find_session(token_here, "jwt")
    assert not users.find_session(token_there, "page")
    assert users.authenticate("admin", "another good one", HERE, throttle)


def test_changing_the_password_needs_the_old_one(admin: User, throttle: LoginThrottle) -> None:
    with pytest.raises(FieldError, match=r"^old_password: is wrong"):
        users.change_password(admin, "wrong", "another good one", HERE, throttle)
    with pytest.raises(FieldError, match=r"^new_password: "):
        users.change_password(admin, PASSWORD, PASSWORD, HERE, throttle)
    with pytest.raises(FieldError, match=r"^new_password: "):
        users.change_password(admin, PASSWORD, "password", HERE, throttle)


def test_guessing_the_old_password_is_throttled(admin: User, throttle: LoginThrottle) -> None:
    for _ in range(5):
        with pytest.raises(FieldError):
            users.change_password(admin, "wrong", "another good one", HERE, throttle)
    with pytest.raises(RateLimited):
        users.change_password(admin, PASSWORD, "another good one", HERE, throttle)


def test_a_user_who_owns_accounts_is_not_deleted(admin: User) -> None:
    users.create("other", PASSWORD)
    db.session.add(Account(provider="openai", name="one", user_id=admin.id))
    db.session.commit()
    with pytest.raises(Conflict, match="'admin' owns 1 accounts"):
        users.delete(admin)
    users.delete(users.named("other"))
    with pytest.raises(NotFound):
        users.named("other")


def test_the_last_user_is_not_deleted(admin: User) -> None:
    with pytest.raises(Conflict, match="the last user"):
        users.delete(admin)


def test_deleting_a_user_ends_the_sessions(admin: User) -> None:
    other = users.create("other", PASSWORD)
    _, token = users.start_session(other, "jwt", HERE, None)
    users.delete(other)
    assert users.find_session(token, "jwt") is None


# --- Sessions


def test_a_session_is_stored_as_a_hash(admin: User) -> None:
    row, token = users.start_session(admin, "page", HERE, "browser" * 100)
    assert len(token) >= 43  # 256 bits
    assert token not in (row.token_hash, str(row.id))
    assert row.user_agent is not None
    assert len(row.user_agent) == 255


def test_a_session_is_found_by_token_and_kind(admin: User) -> None:
    row, token = users.start_session(admin, "page", HERE, None)
    assert users.find_session(token, "page") == (admin, row)
    assert users.find_session(token, "jwt") is None
    assert users.find_session(token + "x", "page") is None
    assert users.find_session(row.token_hash, "page") is None


def test_a_session_that_was_ended_is_not_found(admin: User) -> None:
    row, token = users.start_session(admin, "page", HERE, None)
    users.end_session(row)
    assert users.find_session(token, "page") is None


@pytest.mark.parametrize(
    "kind, idle, found",
    [
        ("page", timedelta(hours=11, minutes=59), True),
        ("page", timedelta(hours=12, minutes=1), False),
        ("jwt", timedelta(hours=23), True),
    ],
)
def test_pages_are_signed_out_when_idle(admin: User, kind: str, idle: timedelta, found: bool) -> None:
    row, token = users.start_session(admin, kind, HERE, None)
    row.last_seen = now() - idle
    db.session.commit()
    assert bool(users.find_session(token, kind)) is found


@pytest.mark.parametrize("kind, life", [("page", timedelta(days=7)), ("jwt", timedelta(hours=24))])
def test_a_session_ends_however_busy_it_is(admin: User, kind: str, life: timedelta) -> None:
    row, token = users.start_session(admin, kind, HERE, None)
    assert abs(row.expires_at - row.created_at - life) < timedelta(seconds=1)
    row.expires_at = now() - timedelta(seconds=1)
    db.session.commit()
    assert users.find_session(token, kind) is None
    users.start_session(admin, kind, HERE, None)
    assert db.session.query(UserSession).count() == 1  # the expired row is gone


def test_being_seen_is_written_once_a_minute(admin: User) -> None:
    row, token = users.start_session(admin, "page", HERE, None)
    seen = row.last_seen
    users.find_session(token, "page")
    assert row.last_seen == seen
    row.last_seen = seen - timedelta(minutes=2)
    db.session.commit()
    users.find_session(token, "page")
    assert row.last_seen > seen


def test_a_confirmation_is_good_for_five_minutes(admin: User, throttle: LoginThrottle) -> None:
    row, _ = users.start_session(admin, "page", HERE, None)
    assert not users.is_confirmed(row)
    with pytest.raises(FieldError, match=r"^password: is wrong"):
        users.confirm(row, admin, "wrong", HERE, throttle)
    users.confirm(row, admin, PASSWORD, HERE, throttle)
    assert users.is_confirmed(row)
    for clock_set_by in (timedelta(), timedelta(hours=1)):
        row.confirmed_at = now() - timedelta(minutes=5, seconds=1) + clock_set_by
        assert not users.is_confirmed(row)


@pytest.mark.usefixtures("passwords_of_real_work")
def test_hashing_does_not_stop_other_greenlets(app: Flask) -> None:
    import gevent

    turns = []

    def tick() -> None:
        while True:
            gevent.sleep(0.005)
            turns.append(1)

    ticker = gevent.spawn(tick)
    passwords.hashed("any password")
    ticker.kill()
    assert len(turns) >= 3


def test_the_3000_most_common_passwords_of_that_length_are_known() -> None:
    long_enough = [word for word in passwords.common() if len(word) >= passwords.SHORTEST]
    assert len(long_enough) >= 3000
    assert {"password", "football", "changeme123"} <= passwords.common()
    assert all(word == word.lower() for word in passwords.common())
