"""The operator's commands: what they print, as text and as JSON, and one line when something is wrong."""

from typing import Any

import pytest
from flask import Flask

from opus_api import crypto
from opus_api.extensions import db
from opus_api.models import Account, User, UserSession
from opus_api.services import users
from opus_api.services.login_throttle import LoginThrottle
from opus_api.state.memory import MemoryState
from tests.commands import Commands
from tests.conftest import Provider
from tests.forms import PASSWORD

BENCH_KEY = "sk-bench-0123456789abcdef"


# --- users


def test_a_user_is_created_with_a_password_from_standard_input(flask: Commands) -> None:
    assert (
        flask.text("users", "create", "somebody", "--password-stdin", stdin=f"{PASSWORD}\n") == "Created user somebody."
    )
    assert users.authenticate("somebody", PASSWORD, "", LoginThrottle(MemoryState())).username == "somebody"


def test_without_a_password_no_user_is_created(flask: Commands) -> None:
    assert flask.error("users", "create", "somebody") == "password: is required; pipe it in and say --password-stdin."
    assert flask.error("users", "create", "somebody", "--password-stdin", stdin="short\n").startswith(
        "password: must be"
    )
    assert flask.json("users", "list") == {"data": [], "total": 0}


def test_users_are_listed(flask: Commands, admin: User) -> None:
    created = users.as_json(admin)
    assert flask.json("users", "list") == {"data": [created], "total": 1}
    assert flask.text("users", "list").splitlines()[1].split() == ["1", "admin", created["created_at"]]


def test_a_lost_password_is_replaced_and_every_session_ends(flask: Commands, admin: User) -> None:
    users.start_session(admin, "page", None, None)
    flask.text("users", "password", "admin", "--password-stdin", stdin="another good one\n")
    assert users.authenticate("admin", "another good one", "", LoginThrottle(MemoryState()))
    assert db.session.query(UserSession).count() == 0
    assert flask.error("users", "password", "nobody") == "There is no user named 'nobody'."


def test_a_user_is_deleted_unless_accounts_or_everybody_would_be_left_alone(flask: Commands, admin: User) -> None:
    assert "the last user" in flask.error("users", "delete", "admin")
    flask.text("users", "create", "other", "--password-stdin", stdin=f"{PASSWORD}\n")
    db.session.add(Account(provider="openai", name="one", user_id=admin.id))
    db.session.commit()
    assert "owns 1 accounts" in flask.error("users", "delete", "admin")
    assert flask.json("users", "delete", "other")["username"] == "other"


# --- keys


def test_creating_a_key_prints_the_key_alone(app: Flask, flask: Commands) -> None:
    value = flask.text("keys", "create", "one")
    assert value.startswith("sk-opus-")
    hashed = crypto.keyed_hash(app.extensions["installation"].pepper, value)
    assert app.extensions["snapshots"].current().keys[hashed].name == "one"


def test_a_key_may_have_a_value_of_its_own(flask: Commands) -> None:
    assert flask.text("keys", "create", "bench", "--value", BENCH_KEY) == BENCH_KEY
    assert flask.error("keys", "create", "short", "--value", "too-short") == "value: must be at least 16 characters."
    assert flask.error("keys", "create", "bench") == "name: there is a key named 'bench' already."


def test_the_json_of_a_new_key_holds_it_once(flask: Commands) -> None:
    made = flask.json("keys", "create", "one", "--override")
    assert made["override"] is True
    assert made["hint"] == made["key"][-4:]
    listed = flask.json("keys", "list")
    assert listed["total"] == 1
    assert "key" not in listed["data"][0]
    assert made["key"] not in flask.text("keys", "list")


def test_a_key_is_revoked_by_name(app: Flask, flask: Commands) -> None:
    flask.text("keys", "create", "one")
    assert flask.json("keys", "revoke", "one")["revoked_at"]
    assert flask.error("keys", "revoke", "one") == "There is no key named 'one'."
    assert app.extensions["snapshots"].current().keys == {}


# --- accounts


def add(flask: Commands, server: Provider, *more: str, name: str = "one", provider: str = "openai") -> Any:
    words = ["--provider", provider, "--name", name, "--api-key", "sk-mock", "--base-url", server.url]
    return flask.json("accounts", "add", *words, *more)


def test_adding_an_account_with_everything(flask: Commands, provider: Provider) -> None:
    account = add(
        flask,
        provider,
        *("--models", "gpt-*, o3", "--map", "claude-*=openai/gpt-5", "--map", "small=o3", "--option", "vision=false"),
        *("--option", "max_tokens=4096", "--priority", "7", "--max-concurrency", "3", "--session-key", "session"),
        *("--proxy", "http://127.0.0.1:9"),
    )
    assert account["models"] == ["gpt-*", "o3"]
    assert account["model_map"] == {"claude-*": "gpt-5", "small": "o3"}
    assert account["options"] == {"vision": False, "max_tokens": 4096}
    assert (account["priority"], account["max_concurrency"], account["proxy"]) == (7, 3, "http://127.0.0.1:9")
    assert account["session_key_hint"] == "****"


def test_the_credential_may_come_from_standard_input(flask: Commands, provider: Provider) -> None:
    words = ["--provider", "openai", "--name", "one", "--api-key-stdin", "--base-url", provider.url]
    assert flask.json("accounts", "add", *words, stdin="sk-from-stdin-1234\n")["api_key_hint"] == "1234"


def test_an_account_that_cannot_be_reached_is_added_all_the_same(flask: Commands) -> None:
    words = ["--provider", "openai", "--name", "one", "--base-url", "http://127.0.0.1:9/v1", "--models", "*"]
    assert flask.text("accounts", "add", *words).startswith("Added openai account one (id 1), active.")


@pytest.mark.parametrize(
    "words, sentence",
    [
        (["--name", "one"], "api_key: is required."),
        (["--provider", "nobody", "--name", "one"], "provider: must be one of"),
        (["--provider", "practice", "--name", "one"], "provider: The practice provider is built in"),
        (["--provider", "openai", "--name", "one", "--map", "claude"], "map: must be given as PATTERN=MODEL."),
        (["--provider", "openai", "--name", "one", "--option", "colour=red"], "options.colour: is no option"),
        (["--provider", "openai", "--name", "one", "--base-url", "http://10.1.1.1"], "base_url: "),
    ],
)
def test_a_wrong_account_is_one_line(flask: Commands, words: list[str], sentence: str) -> None:
    assert flask.error("accounts", "add", *words).startswith(sentence)
    assert flask.json("accounts", "list")["total"] == 0


def test_the_first_account_without_claude_names_comes_with_a_hint(flask: Commands, provider: Provider) -> None:
    words = ["accounts", "add", "--provider", "openai", "--api-key", "sk-mock", "--base-url", provider.url, "--name"]
    first = flask.text(*words, "one")
    assert "flask models map 'claude-*' 'openai/model-a'" in first
    assert "models map" not in flask.text(*words, "two")


@pytest.mark.parametrize("words", [("--models", "*"), ("--map", "claude-*=model-a")])
def test_the_hint_is_left_out_where_it_is_not_needed(
    flask: Commands, provider: Provider, words: tuple[str, ...]
) -> None:
    base = ["--provider", "openai", "--name", "one", "--api-key", "sk-mock", "--base-url", provider.url]
    assert "models map" not in flask.text("accounts", "add", *base, *words)


def test_accounts_are_listed(flask: Commands, provider: Provider) -> None:
    add(flask, provider)
    assert [row["name"] for row in flask.json("accounts", "list")["data"]] == ["one"]
    assert flask.text("accounts", "list").splitlines()[1].split() == ["1", "openai", "one", "active", "0"]


def test_accounts_are_validated_by_name_or_all(flask: Commands, provider: Provider) -> None:
    add(flask, provider)
    add(flask, provider, name="two")
    assert flask.json("accounts", "validate")["total"] == 2
    provider.status, provider.body = 401, {}
    found = flask.json("accounts", "validate", "two")
    assert (found["total"], found["invalid"], found["results"][0]["state"]) == (1, 1, "invalid")
    assert "invalid" in flask.text("accounts", "validate", "two")


def test_accounts_are_disabled_enabled_reset_and_deleted(flask: Commands, provider: Provider) -> None:
    add(flask, provider)
    add(flask, provider, name="two")
    assert flask.json("accounts", "disable", "one")["data"][0]["state"] == "disabled"
    assert flask.text("accounts", "reset") == "Reset one, two."
    assert [row["state"] for row in flask.json("accounts", "list")["data"]] == ["disabled", "active"]
    assert flask.json("accounts", "enable", "one")["data"][0]["state"] == "active"
    assert flask.text("accounts", "delete", "one", "two") == "Deleted one, two."
    assert flask.json("accounts", "list")["total"] == 0


def test_nothing_happens_unless_every_name_is_known(flask: Commands, provider: Provider) -> None:
    add(flask, provider)
    assert flask.error("accounts", "delete", "one", "three") == "There is no account named 'three'."
    assert flask.json("accounts", "list")["total"] == 1


def test_a_name_of_two_providers_is_told_apart(flask: Commands, provider: Provider) -> None:
    add(flask, provider)
    add(flask, provider, provider="morph")
    assert "PROVIDER/NAME" in flask.error("accounts", "disable", "one")
    assert flask.json("accounts", "disable", "morph/one")["data"][0]["provider"] == "morph"


# --- models


def test_rules_are_made_listed_and_removed(flask: Commands) -> None:
    assert flask.text("models", "map", "claude-*", "openai/gpt-5") == "claude-* now stands for openai/gpt-5."
    assert flask.json("models", "list") == {"data": [{"pattern": "claude-*", "target": "openai/gpt-5"}], "total": 1}
    assert flask.text("models", "unmap", "claude-*") == "Removed the rule for claude-*."
    assert flask.error("models", "unmap", "claude-*") == "There is no rule for 'claude-*'."


def test_a_cassette_needs_what_debug_mode_kept(flask: Commands) -> None:
    assert flask.error("logs", "cassette", "req_unknown").startswith("Nothing was kept of req_unknown in ")
