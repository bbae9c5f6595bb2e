"""The retry budget of a worker, and the line of requests that wait for a place."""

from __future__ import annotations

import gevent
import pytest

from opus_api.gateway.load import MOST_WAITING, RETRIES, Load, Permit
from opus_api.transport import ClientGone, Patience


@pytest.mark.parametrize("requests, retries", [(0, 3), (1, 3), (15, 3), (16, 4), (20, 4), (100, 20), (1000, 200)])
def test_retries_are_a_fifth_of_the_requests_and_three_at_least(requests: int, retries: int) -> None:
    load = Load()
    load.requests = requests
    permits = []
    while load.may_retry():
        permits.append(Permit(load))
    assert len(permits) == retries
    for permit in permits * 2:  # a permit ends once
        permit.release()
    assert load.retries == 0


def waiter(load: Load, places: tuple[object, ...], order: list[str], name: str) -> gevent.Greenlet[[], None]:
    def wait() -> None:
        with load.line_up(places) as place:  # type: ignore[arg-type]
            place.wait(Patience(), 5.0)
            order.append(name)

    return gevent.spawn(wait)


def test_a_free_place_wakes_who_has_waited_longest_for_it() -> None:
    load, order = Load(), list[str]()
    waiting = [waiter(load, places, order, name) for name, places in (("a", (1,)), ("b", (1, 2)), ("c", (2,)))]
    gevent.sleep(0)
    for place, expected in ((2, ["b"]), (3, ["b"]), (1, ["b", "a"]), (2, ["b", "a", "c"])):
        load.freed(place)
        gevent.sleep(0.01)
        assert order == expected
    gevent.joinall(waiting, raise_error=True)
    assert not load.is_full


def test_two_places_wake_two() -> None:
    load, order = Load(), list[str]()
    waiting = [waiter(load, (1,), order, name) for name in "abc"]
    gevent.sleep(0)
    load.freed(1)
    load.freed(1)
    gevent.sleep(0.01)
    assert order == ["a", "b"]
    load.freed(1)
    gevent.joinall(waiting, raise_error=True)


def test_a_retry_that_has_its_content_makes_room_for_the_next() -> None:
    load, order = Load(), list[str]()
    permit = Permit(load)
    waiting = waiter(load, (RETRIES,), order, "a")
    gevent.sleep(0)
    permit.release()
    waiting.join(1)
    assert order == ["a"]


def test_a_client_that_leaves_leaves_the_line() -> None:
    load, patience = Load(), Patience()

    def wait() -> None:
        with load.line_up((1,)) as place:
            place.wait(patience, 5.0)

    waiting = gevent.spawn(wait)
    gevent.sleep(0)
    patience.client_gone()
    with pytest.raises(ClientGone):
        waiting.get(timeout=1)
    load.freed(1)  # nobody is there any more


def test_the_line_is_bounded() -> None:
    load = Load()
    waiting = [waiter(load, (1,), [], "") for _ in range(MOST_WAITING)]
    gevent.sleep(0)
    assert load.is_full
    for _ in waiting:
        load.freed(1)
    gevent.joinall(waiting, raise_error=True)
    assert not load.is_full
