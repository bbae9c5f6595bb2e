"""Addresses are built as werkzeug builds them, and none before somebody asks; their ids are those that columns hold."""

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.routing import IntegerConverter, Map, Rule

from opus_api.web.addresses import LARGEST_ID, Address

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


@pytest.mark.parametrize("number", [LARGEST_ID + 1, 10**30])
def test_a_number_that_is_too_large_for_an_id_is_not_found_on_any_route(person: FlaskClient, number: int) -> None:
    tried = []
    for rule in person.application.url_map.iter_rules():
        numbers = [name for name, kind in rule._converters.items() if isinstance(kind, IntegerConverter)]
        if numbers:
            path = rule.rule
            for name in numbers:
                path = path.replace(f"<int:{name}>", str(number))
            tried += [(method, path) for method in rule.methods or ()]
    assert len(tried) > 50
    assert {person.open(path, method=method).status_code for method, path in tried} == {404}


def test_the_largest_id_is_looked_for(person: FlaskClient) -> None:
    page = person.get(f"/cookies/{LARGEST_ID}/edit")
    assert (page.status_code, "There is no account with the id" in page.text) == (404, True)
