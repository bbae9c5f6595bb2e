"""The pages of blocked addresses and of changes: what they show, what their forms take and keep."""

from collections.abc import Callable
from datetime import timedelta

import pytest
from flask.testing import FlaskClient

from opus_api.extensions import db
from opus_api.models import Change, IpRule, Refusal, now
from tests.web.conftest import weight
from tests.web.test_keys_pages import control

Post = Callable[..., str]


def rules() -> dict[str, str]:
    return {rule.cidr: rule.reason for rule in db.session.query(IpRule)}


@pytest.mark.parametrize("path", ["/ips", "/changes"])
def test_strangers_are_led_to_the_sign_in(client: FlaskClient, path: str) -> None:
    assert client.get(path).location == f"/login?next={path}"


def test_an_address_is_blocked_listed_and_let_in_again(person: FlaskClient, post: Post) -> None:
    assert "Nobody is kept out" in person.get("/ips").text
    page = post("/ips", ip="192.0.2.7", reason="guesses keys", expires_in="86400")
    for part in ("192.0.2.7/32 is blocked.", "guesses keys", "in 24 h"):
        assert part in page
    post("/ips", ip="198.51.100.9/24", reason="", expires_in="")
    assert rules() == {"192.0.2.7/32": "guesses keys", "198.51.100.0/24": ""}
    assert "198.51.100.0/24 may come in again." in post("/ips/unblock", cidr="198.51.100.0/24")
    assert list(rules()) == ["192.0.2.7/32"]
    assert "198.51.100.0/24 is not blocked." in post("/ips/unblock", cidr="198.51.100.0/24")


def test_an_ipv6_address_says_which_network_is_blocked_with_it(post: Post) -> None:
    page = post("/ips", ip="2001:db8::1", reason="", expires_in="")
    assert "2001:db8::/64 is blocked, the whole network of 2001:db8::1." in page


def test_the_form_is_filled_in_by_the_page_that_leads_here(person: FlaskClient) -> None:
    page = person.get("/ips?ip=192.0.2.7&reason=req_1").text
    assert 'value="192.0.2.7"' in control(page, "ip")
    assert 'value="req_1"' in control(page, "reason")
    assert rules() == {}


@pytest.mark.parametrize("ip", ["127.0.0.1", "127.0.0.0/8"])
def test_ones_own_address_is_blocked_only_when_asked_for_twice(post: Post, ip: str) -> None:
    page = post("/ips", ip=ip, reason="kept", expires_in="3600")
    assert "This is the address you come from." in page
    assert f'value="{ip}"' in control(page, "ip")
    assert 'value="kept"' in control(page, "reason")
    assert rules() == {}
    post("/ips", ip=ip, reason="kept", expires_in="3600", own="y")
    assert list(rules().values()) == ["kept"]


@pytest.mark.parametrize(
    "form, field, sentence",
    [
        ({"ip": ""}, "ip", "Give an address or a network."),
        ({"ip": "nonsense"}, "ip", "Address or network must be an address such as"),
        ({"ip": "192.0.2.0/40"}, "ip", "Address or network must be a network such as"),
        ({"ip": "192.0.2.1", "reason": "r" * 256}, "reason", "Reason must be at most 255 characters."),
        ({"ip": "192.0.2.1", "expires_in": "5"}, "expires_in", "Not a valid choice"),
    ],
)
def test_bad_input_is_shown_at_its_field_and_kept(post: Post, form: dict[str, str], field: str, sentence: str) -> None:
    page = post("/ips", **{"expires_in": "", **form})
    assert sentence in page
    assert 'aria-invalid="true"' in control(page, field)
    assert form["ip"] in control(page, "ip")
    assert rules() == {}


@pytest.mark.parametrize("path", ["/ips", "/ips/unblock"])
def test_a_form_without_its_token_changes_nothing(person: FlaskClient, path: str) -> None:
    db.session.add(IpRule(cidr="192.0.2.0/24", reason=""))
    db.session.commit()
    assert person.post(path, data={"ip": "192.0.2.7", "cidr": "192.0.2.0/24"}).status_code == 400
    assert list(rules()) == ["192.0.2.0/24"]


def test_a_full_page_of_addresses_weighs_at_most_60_kb(person: FlaskClient) -> None:
    for number in range(60):
        ends = now() + timedelta(days=number + 1)
        db.session.add(IpRule(cidr=f"192.0.{number}.0/24", reason="it guessed a hundred keys", expires_at=ends))
    db.session.commit()
    page = person.get("/ips")
    assert "And 30 older ones" in page.text
    assert weight(page) <= 60_000


def test_who_was_refused_lately_is_listed_and_can_be_blocked(person: FlaskClient) -> None:
    minute = int(now().timestamp()) // 60
    for minutes, ip, count in ((3, "192.0.2.7", 40), (2, "192.0.2.7", 2), (1, "198.51.100.1", 9), (2000, "1.2.3.4", 5)):
        db.session.add(Refusal(minute=minute - minutes, client_ip=ip, status=401, requests=count))
    db.session.add(Refusal(minute=minute, client_ip="other", status=401, requests=3))
    db.session.add(IpRule(cidr="198.51.100.0/24", reason=""))
    db.session.commit()
    page = person.get("/ips").text.partition("Refused lately")[2]
    assert page.index("192.0.2.7") < page.index("198.51.100.1") < page.index("others")
    assert ">42</td>" in page
    assert "1.2.3.4" not in page
    assert page.count("Block…</a>") == 1  # one is blocked, the rest of a flood has no address
    assert 'href="/ips?ip=192.0.2.7&amp;reason=refused+42+times#block"' in page


# --- Changes ----------------------------------------------------------------------------------------------------------


def noted(count: int, **columns: object) -> None:
    for number in range(count):
        db.session.add(Change(**{"who": "admin", "what": "logRetentionDays", "before": number, "after": -1, **columns}))
    db.session.commit()


def test_without_changes_it_is_said_what_will_be_here(person: FlaskClient) -> None:
    assert "Nothing was changed yet" in person.get("/changes").text


def test_every_change_tells_who_what_before_and_after_but_no_secret(person: FlaskClient, post: Post) -> None:
    post("/settings", metricsToken="scrape-me-0123456789")
    noted(1, who="mia", before="priority", after="<b>least_used</b>")
    page = person.get("/changes").text
    for part in ("mia", "logRetentionDays", "priority", "&lt;b&gt;least_used"):
        assert part in page


def test_no_name_turns_a_line_of_the_changes_around(person: FlaskClient) -> None:
    noted(1, who="a\u202eb", what="key c\u202ed", before="e\u202ef", after="g\u202eh")
    page = person.get("/changes").text
    assert "\u202e" not in page
    assert page.count("&lt;U+202E&gt;") == 4


def test_every_change_stands_on_one_page_also_when_others_come_meanwhile(person: FlaskClient) -> None:
    noted(70)
    first = person.get("/changes")
    assert weight(first) <= 60_000
    assert first.text.count("<tr>") == 26  # with the head
    oldest = db.session.query(Change).order_by(Change.id.desc()).offset(24).limit(1).one().id
    assert f'href="/changes?before={oldest}"' in first.text
    noted(5)
    second = person.get(f"/changes?before={oldest}").text
    assert f">{70 - 26}</td>" in second
    assert second.count("<tr>") == 26
    assert ">Newest</a>" in second


def test_changes_are_filtered_by_who_and_what_in_the_address(person: FlaskClient) -> None:
    noted(2, who="mia")
    noted(3, what="sticky")
    noted(1)
    for query, count in (("who=mia", 2), ("what=sticky", 3), ("who=admin&what=sticky", 3), ("who=mia&what=sticky", 0)):
        page = person.get(f"/changes?{query}").text
        assert max(0, page.count("<tr>") - 1) == count
    assert "No change matches" in page


def test_who_blocked_and_unblocked_an_address_is_told(person: FlaskClient, post: Post) -> None:
    post("/ips", ip="192.0.2.7", reason="guesses keys", expires_in="")
    post("/ips/unblock", cidr="192.0.2.7/32")
    changes = db.session.query(Change).order_by(Change.id).all()
    terms = {"reason": "guesses keys", "expires_at": None}
    assert [(change.who, change.what, change.before, change.after) for change in changes] == [
        ("admin", "block 192.0.2.7/32", None, terms),
        ("admin", "block 192.0.2.7/32", terms, None),
    ]
    assert "guesses keys" in person.get("/changes").text


@pytest.mark.parametrize(
    "language, told, states",
    [
        ("en", ["key one", "block 192.0.2.7/32"], ["live", "revoked"]),
        ("zh", ["密钥 one", "封禁 192.0.2.7/32"], ["有效", "已吊销"]),
    ],
)
def test_changes_are_told_in_the_language_of_the_page(
    person: FlaskClient, language: str, told: list[str], states: list[str]
) -> None:
    noted(1, what="key one", before="live", after="revoked")
    noted(1, what="block 192.0.2.7/32", before=None, after={"reason": "live"})
    noted(1, what="strategy", before="deleted", after="live")  # a setting's value is no word
    page = person.get("/changes", headers={"Accept-Language": language}).text
    for part in (*told, *states, "{&#34;reason&#34;: &#34;live&#34;}", "deleted"):
        assert f">{part}</" in page
    assert 'href="/changes?what=key+one"' in page


def test_what_is_too_long_for_a_column_of_a_phone_takes_the_whole_width_there(person: FlaskClient) -> None:
    noted(1, before=30, after=7)
    assert "mono wide" not in person.get("/changes").text
    noted(1, before=None, after={"reason": "guesses keys"})
    assert person.get("/changes").text.count("mono wide") == 2
