"""A person's own page: the password, where this person is signed in."""

from collections.abc import Callable
from datetime import timedelta

import pytest
from flask.testing import FlaskClient

from opus_api.extensions import db
from opus_api.models import User, UserSession, now
from opus_api.services import users
from opus_api.web.profile_pages import device
from tests.forms import PASSWORD
from tests.web.conftest import weight
from tests.web.test_keys_pages import control

Post = Callable[..., str]
FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"


def begin(user: User, kind: str = "page", agent: str = FIREFOX, ip: str = "192.0.2.7") -> UserSession:
    return users.start_session(user, kind, ip, agent)[0]


def alive() -> set[int]:
    return {session.id for session in db.session.query(UserSession)}


def test_strangers_are_led_to_the_sign_in(client: FlaskClient) -> None:
    assert client.get("/profile").location == "/login?next=/profile"


def test_every_sign_in_is_listed_and_this_one_is_marked(person: FlaskClient, admin: User) -> None:
    begin(admin)
    begin(admin, "jwt", "curl/8.5.0")
    begin(admin, agent="Idle/1").last_seen = now() - timedelta(hours=13)
    begin(admin, agent="Over/1").expires_at = now()
    stranger = User(username="other", password_hash="x")
    db.session.add(stranger)
    db.session.commit()
    begin(stranger, agent="Stranger/1")
    page = person.get("/profile").text
    for part in ("Firefox on Linux", "192.0.2.7", "curl", "API token"):
        assert part in page
    for part in ("Idle", "Over", "Stranger"):
        assert part not in page
    assert page.count("this one") == 1
    assert page.count("<tr>") == 4  # with the head


def test_one_sign_in_is_ended(post: Post, admin: User) -> None:
    other = begin(admin, "jwt")
    assert "This sign-in is ended." in post(f"/profile/sign-ins/{other.id}/end")
    assert other.id not in alive()
    assert "This sign-in has ended already." in post(f"/profile/sign-ins/{other.id}/end")


def test_nobody_ends_the_sign_ins_of_others(post: Post) -> None:
    stranger = User(username="other", password_hash="x")
    db.session.add(stranger)
    db.session.commit()
    theirs = begin(stranger)
    assert "This sign-in has ended already." in post(f"/profile/sign-ins/{theirs.id}/end")
    assert theirs.id in alive()


def test_ending_this_one_signs_out(person: FlaskClient, post: Post) -> None:
    (this,) = alive()
    assert "You are signed out." in post(f"/profile/sign-ins/{this}/end")
    assert person.get("/profile").location.startswith("/login")


def test_signing_out_everywhere_ends_all_of_them(person: FlaskClient, post: Post, admin: User) -> None:
    begin(admin)
    begin(admin, "jwt")
    assert "You are signed out everywhere." in post("/profile/sign-ins/end")
    assert alive() == set()
    assert person.get("/profile").location.startswith("/login")


def test_the_password_is_changed_here_and_other_sign_ins_end(person: FlaskClient, post: Post, admin: User) -> None:
    begin(admin, "jwt")
    page = post("/profile", old_password=PASSWORD, new_password="a better password")
    assert "Your password is changed." in page
    assert "<h1>admin</h1>" in page
    assert len(alive()) == 1


@pytest.mark.parametrize(
    "form, field, sentence",
    [
        ({"old_password": PASSWORD, "new_password": "short"}, "new_password", "must be at least 8 characters."),
        ({"old_password": "wrong", "new_password": "a better password"}, "old_password", "Current password is wrong."),
        ({"old_password": "", "new_password": "a better password"}, "old_password", "Enter the password you have now."),
    ],
)
def test_a_password_that_will_not_do_is_refused_at_its_field(
    post: Post, admin: User, form: dict[str, str], field: str, sentence: str
) -> None:
    before = admin.password_hash
    page = post("/profile", **form)
    assert sentence in page
    assert 'aria-invalid="true"' in control(page, field)
    assert "Where you are signed in" in page
    db.session.refresh(admin)
    assert admin.password_hash == before


@pytest.mark.parametrize("path", ["/profile", "/profile/sign-ins/end", "/profile/sign-ins/1/end"])
def test_a_form_without_its_token_changes_nothing(person: FlaskClient, path: str) -> None:
    before = alive()
    assert person.post(path).status_code == 400
    assert alive() == before


@pytest.mark.parametrize(
    "agent, called",
    [
        (FIREFOX, ("Firefox", "Linux")),
        (
            "Mozilla/5.0 (Windows NT 10.0) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0 Safari/537.36",
            ("Chrome", "Windows"),
        ),
        (
            "Mozilla/5.0 (Windows NT 10.0) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0 Safari/537.36 Edg/140.0",
            ("Edge", "Windows"),
        ),
        (
            "Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) AppleWebKit/605.1.15 Version/18.0 Safari/604.1",
            ("Safari", "iPhone"),
        ),
        ("curl/8.5.0", ("curl", "")),
        ("python-requests/2.32", ("python-requests", "")),
        ("", ("", "")),
        ("<script>", ("", "")),
    ],
)
def test_programs_are_called_as_people_call_them(agent: str, called: tuple[str, str]) -> None:
    assert device(agent) == called


def test_the_page_weighs_at_most_60_kb(person: FlaskClient, admin: User) -> None:
    for _ in range(30):
        begin(admin)
    assert weight(person.get("/profile")) <= 60_000
