"""API keys are shown once, stored as hashes, and revoked for good."""

from typing import Any

import pytest
from flask import Flask

from opus_api.extensions import db
from opus_api.models import ApiKey
from opus_api.services import api_keys, audit
from opus_api.services.values import FieldError
from opus_api.wire.errors import Conflict, NotFound

PEPPER = b"pepper"
pytestmark = pytest.mark.usefixtures("app")


def create(**data: Any) -> tuple[ApiKey, str]:
    return api_keys.create(PEPPER, {"name": "one", **data})


def test_a_key_is_random_and_only_its_hash_is_stored() -> None:
    key, value = create()
    assert value.startswith("sk-opus-")
    assert len(value) == 51
    assert key.hint == value[-4:]
    assert value not in (key.key_hash, key.name)
    assert key.key_hash != create(name="two")[0].key_hash


def test_an_operators_own_value_is_taken() -> None:
    assert create(value="sk-bench-0123456789abcdef")[1] == "sk-bench-0123456789abcdef"


def test_a_name_is_free_again_once_its_key_is_revoked() -> None:
    key, _ = create()
    with pytest.raises(Conflict, match=r"^name: there is a key named 'one' already"):
        create()
    api_keys.revoke(key)
    again, _ = create()
    assert api_keys.named("one") is again
    assert [entry.revoked_at is None for entry in api_keys.every()] == [False, True]


def test_a_value_is_given_only_once() -> None:
    create(value="sixteen-letters!")
    with pytest.raises(Conflict, match=r"^value: "):
        create(name="two", value="sixteen-letters!")


def test_revoking_twice_keeps_the_first_moment() -> None:
    key, _ = create()
    api_keys.revoke(key)
    first = key.revoked_at
    api_keys.revoke(key)
    assert key.revoked_at == first
    with pytest.raises(NotFound):
        api_keys.named("one")


@pytest.mark.parametrize(
    "data, field",
    [
        ({"name": ""}, "name"),
        ({"name": None}, "name"),
        ({"value": "fifteen-letters"}, "value"),
        ({"value": "a key with spaces"}, "value"),
        ({"value": "ключ-ключ-ключ-ключ"}, "value"),
        ({"value": 5}, "value"),
        ({"override": "yes"}, "override"),
        ({"models": "gpt-*"}, "models"),
        ({"limits": []}, "limits"),
        ({"limits": {"rpm": 0}}, "limits.rpm"),
        ({"limits": {"colour": 1}}, "limits.colour"),
        ({"expires_at": "tomorrow"}, "expires_at"),
        ({"expires_at": "2030-01-01T00:00:00"}, "expires_at"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_a_wrong_field_is_named(data: dict[str, Any], field: str) -> None:
    with pytest.raises(FieldError) as refusal:
        create(**data)
    assert refusal.value.field == field


def test_the_json_of_a_key_is_what_the_interface_says() -> None:
    key, value = create(
        override=True, models=["gpt-*"], limits={"rpm": 5, "itpm": None}, expires_at="2030-01-01T01:00:00+01:00"
    )
    db.session.refresh(key)
    shown = api_keys.as_json(key)
    assert value not in str(shown)
    assert shown == {
        "id": key.id,
        "name": "one",
        "hint": value[-4:],
        "created_at": shown["created_at"],
        "expires_at": "2030-01-01T00:00:00Z",
        "revoked_at": None,
        "last_used": None,
        "override": True,
        "models": ["gpt-*"],
        "limits": {"rpm": 5, "itpm": None, "otpm": None, "concurrency": None, "monthly_tokens": None},
        "usage": {"requests": 0, "input_tokens": 0, "output_tokens": 0},
    }


def test_keys_are_found_by_id() -> None:
    key, _ = create()
    assert api_keys.get(key.id) is key
    with pytest.raises(NotFound):
        api_keys.get(key.id + 1)


def test_an_id_is_never_given_out_again(app: Flask) -> None:
    key, _ = create()
    first = key.id
    db.session.delete(key)
    db.session.commit()
    assert create()[0].id > first


def test_who_made_changed_or_revoked_a_key_is_noted_and_its_value_is_not() -> None:
    audit.acts("mia")
    key, value = create(limits={"rpm": 5})
    api_keys.update(key.id, {"name": "one", "limits": {"rpm": 9}, "expires_at": "2099-01-01T00:00:00Z"})
    api_keys.update(key.id, {"name": "one"})
    api_keys.revoke(key)
    api_keys.revoke(key)
    assert [(change.who, change.what, change.before, change.after) for change in audit.newest()] == [
        ("mia", "key one", "live", "revoked"),
        (
            "mia",
            "key one",
            {"limits": {"rpm": 5}, "expires_at": None},
            {"limits": {"rpm": 9}, "expires_at": "2099-01-01T00:00:00Z"},
        ),
        ("mia", "key one", None, "live"),
    ]
    assert value not in repr([audit.as_json(change) for change in audit.newest()])
