"""Addresses are built as werkzeug builds them, and none before somebody asks."""

from flask import Flask
from werkzeug.routing import Map, Rule

from opus_api.web.addresses import Address

RULE = "/things/<int:id>/<path:rest>"


def built(kind: type[Rule], **values: object) -> list[str]:
    """Twice: the first builds what the second finds."""
    addresses = Map([kind(RULE, endpoint="thing", defaults={"side": "left"})]).bind("host")
    return [addresses.build("thing", values, append_unknown=unknown) for unknown in (True, False) for _ in range(2)]


def test_it_is_built_as_any_other() -> None:
    values = {"id": 7, "rest": "a b/c", "more": "x&y"}
    assert built(Address, **values) == built(Rule, **values)
    assert built(Address, **values)[:2] == ["/things/7/a%20b/c?more=x%26y"] * 2


def test_an_app_compiles_only_what_is_asked_for(app: Flask) -> None:
    rules = [rule for rule in app.url_map.iter_rules() if isinstance(rule, Address)]
    assert len(rules) > 100
    with app.test_request_context():
        app.url_for("health.healthz")
    assert [rule.endpoint for rule in rules if "Address" not in rule._build_unknown.__qualname__] == ["health.healthz"]
