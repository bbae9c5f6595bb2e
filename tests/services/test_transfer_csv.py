"""Accounts as a table: nothing lost on the way, nothing that a spreadsheet would run."""

import csv
import io
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opus_api.services import transfer_csv
from opus_api.wire.errors import Unprocessable

ROWS: list[dict[str, Any]] = [
    {"provider": "openai", "name": "one", "api_key": "sk-1", "priority": -5, "max_concurrency": 3, "state": "disabled"},
    {"provider": "anthropic", "name": 'Zwei, "zwei"\nund 三', "api_key": "sk-2", "models": ["a", "b,c"]},
    {"provider": "openai", "name": "three", "api_key": "sk-3", "model_map": {"claude-*": "m"}, "proxy": "http://p:1"},
    {
        "provider": "amazonq",
        "name": "four",
        "client_id": "c",
        "client_secret": "s",
        "refresh_token": "r",
        "oidc": {"region": "us-east-1", "wire": None},
        "options": {"x": True},
    },
]
# What a cell may hold. Lines may end as they like within a cell, but a CSV reader makes no difference between them.
TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\x00\r"), min_size=1)


def test_what_is_written_is_read_again() -> None:
    assert transfer_csv.read(transfer_csv.written(ROWS)) == (ROWS, False)


@given(name=TEXT, secret=TEXT)
def test_any_text_comes_back_as_it_was(name: str, secret: str) -> None:
    rows = [{"provider": "openai", "name": name, "api_key": secret}]
    assert transfer_csv.read(transfer_csv.written(rows)) == (rows, False)


@pytest.mark.parametrize("name", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "'=1", "'"])
def test_no_cell_is_a_formula(name: str) -> None:
    written = transfer_csv.written([{"provider": "openai", "name": name}])
    (_, (_, cell)) = list(csv.reader(io.StringIO(written, newline="")))
    assert cell == "'" + name
    assert transfer_csv.read(written)[0][0]["name"] == name


def test_only_columns_that_somebody_fills_are_written() -> None:
    assert transfer_csv.written([{"provider": "openai", "name": "one", "models": [], "proxy": None}]).splitlines() == [
        "provider,name",
        "openai,one",
    ]


@pytest.mark.parametrize(
    "text",
    [
        "provider;name;models\r\nopenai;one;a, b\r\n",
        'Provider , NAME,models\nopenai,one,"a,b"\n\n,,\n',
        'provider,name,models\nopenai,one,"[""a"", ""b""]"',
    ],
)
def test_tables_as_people_and_spreadsheets_write_them(text: str) -> None:
    assert transfer_csv.read(text)[0] == [{"provider": "openai", "name": "one", "models": ["a", "b"]}]


def test_what_is_no_number_and_no_json_is_left_to_the_check_of_its_field() -> None:
    rows, _ = transfer_csv.read("provider,name,priority,options,model_map\nopenai,one,high,{,x")
    assert rows == [{"provider": "openai", "name": "one", "priority": "high", "options": "{", "model_map": "x"}]


def test_half_of_a_character_in_a_cell_is_no_json() -> None:
    rows, _ = transfer_csv.read('provider,name,options\nopenai,one,"{""system_role"": ""\\ud800""}"')
    assert rows[0]["options"] == '{"system_role": "\\ud800"}'


@pytest.mark.parametrize("text", ["provider,name,api_key_hint\nopenai,one,6789", "provider,name\nopenai,one"])
def test_a_table_without_credentials_says_so(text: str) -> None:
    assert transfer_csv.read(text) == ([{"provider": "openai", "name": "one"}], True)


@pytest.mark.parametrize(
    "text, says",
    [
        ("", "provider: there is no such column"),
        ("provider,priority\nopenai,1", "name: there is no such column"),
        ("provider,name,color\n", "color: is no column"),
        ("provider,name,name\n", "name: there are two columns"),
        ("provider,name,\n", "column 3: is no column"),
        ("provider,name\nopenai,one\nopenai,two,three", "line 3: has 3 cells"),
        ("provider,name\nopenai,one\nopenai," + "x" * 200_000, "line 3: is no line"),
    ],
)
def test_a_wrong_table_is_refused_with_its_column_or_line(text: str, says: str) -> None:
    with pytest.raises(Unprocessable) as caught:
        transfer_csv.read(text)
    assert caught.value.message.startswith(says)
