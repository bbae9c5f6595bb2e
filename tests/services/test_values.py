"""Values that people send, at the edges of what their types can hold."""

from datetime import UTC, datetime

import pytest

from opus_api.services.values import FieldError, moment, rfc3339, text


@pytest.mark.parametrize(
    "written", ["0001-01-01T00:00:00Z", "0299-04-15T21:07:23Z", "2026-01-31T12:00:00Z", "9999-12-31T23:59:59Z"]
)
def test_a_time_comes_back_as_it_was_written(written: str) -> None:
    assert rfc3339(moment("from", written)) == written


@pytest.mark.parametrize("written", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "2026-01-31", "", 5])
def test_a_time_without_a_zone_or_outside_of_the_calendar_is_refused(written: object) -> None:
    with pytest.raises(FieldError, match=r"^from: must be a time"):
        moment("from", written)


def test_parts_of_a_second_are_left_out() -> None:
    assert rfc3339(datetime(2026, 1, 31, 12, 0, 0, 999_999, UTC)) == "2026-01-31T12:00:00Z"


@pytest.mark.parametrize("value", ["a\x00b", "\ud800", 5, "x" * 501])
def test_what_no_database_keeps_as_text_is_refused(value: object) -> None:
    with pytest.raises(FieldError, match=r"^name: must "):
        text("name", value)
