"""Ids in addresses: what no column of a database holds names nothing, on every route there is."""

import pytest
from flask.testing import FlaskClient
from werkzeug.routing import IntegerConverter

from opus_api.web.converters import LARGEST_ID


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
