"""What becomes of live answers when the service is told to stop."""

from pathlib import Path

from tests.live import gateway


def test_a_stream_that_can_not_finish_ends_with_an_error_event_and_leaves_its_row(migrated: Path) -> None:
    with gateway(migrated, GRACEFUL_TIMEOUT="4") as live:
        with live.streaming(
            "practice/endless", messages=[{"role": "user", "content": "[[practice:slow]] Hi"}]
        ) as stream:
            assert stream.readline() == b"event: message_start\n"
            live.process.terminate()
            rest = stream.read()  # to the regular end of the chunked body
        assert b'"type":"overloaded_error"' in rest.rpartition(b"event: error")[2]
        assert live.process.wait(timeout=10) == 0
        (row,) = live.rows()
        assert (row["outcome"], row["error_type"]) == ("aborted", "overloaded_error")


def test_a_stream_that_finishes_in_time_finishes(migrated: Path) -> None:
    with gateway(migrated, GRACEFUL_TIMEOUT="12") as live:
        with live.streaming("practice/short") as stream:
            assert stream.readline() == b"event: message_start\n"
            live.process.terminate()
            rest = stream.read()
        assert rest.endswith(b'data: {"type":"message_stop"}\n\n')
        assert live.process.wait(timeout=14) == 0
        assert [row["outcome"] for row in live.rows()] == ["ok"]
