"""What the sign-in service may answer, sense or nonsense, and what is made of it."""

import json
from typing import Any

import pytest

from opus_api.upstreams import amazonq_login as login
from opus_api.upstreams.amazonq_login import Client, Device, Granted, Refused
from opus_api.wire.http import Flow, HttpRequest, HttpResponse

OURS = Client("id-1", "secret-1")


def ran(flow: Flow[Any], response: HttpResponse) -> tuple[HttpRequest, Any]:
    """(what was asked, what came of it)"""
    asked = next(flow)
    with pytest.raises(StopIteration) as end:
        flow.send(response)
    return asked, end.value.value


def said(body: Any, status: int = 200, **headers: str) -> HttpResponse:
    return HttpResponse(status, headers, body if isinstance(body, bytes) else json.dumps(body).encode())


NONSENSE = [said(b""), said(b"<html>"), said([]), said({}), said("x"), said(None), said(b"\xff"), said({}, 503)]


@pytest.mark.parametrize("response", NONSENSE, ids=lambda response: f"{response.status} {response.body!r}")
def test_nonsense_is_a_refusal_that_may_be_tried_again(response: HttpResponse) -> None:
    for flow in (
        login.register("us-east-1"),
        login.start("us-east-1", OURS, login.BUILDER_ID),
        login.poll("us-east-1", OURS, "code-1"),
        login.refresh("us-east-1", OURS, "refresh-1"),
    ):
        _, found = ran(flow, response)
        assert isinstance(found, Refused)
        assert (found.is_final, found.error) == (False, f"status {response.status}")


@pytest.mark.parametrize(
    "response, error, is_final",
    [
        (said({"error": "invalid_grant", "error_description": None}, 400), "invalid_grant", True),
        (
            said({"message": "no"}, 400, **{"x-amzn-errortype": "InvalidGrantException:http://x/"}),
            "invalid_grant",
            True,
        ),
        (said({}, 401, **{"x-amzn-errortype": "InvalidClientException"}), "invalid_client", True),
        (said(b"", 400, **{"x-amzn-errortype": "SlowDownException"}), "slow_down", False),
        (said({"error": "slow_down"}, 400), "slow_down", False),
        (said({"error": "server_error"}, 500), "server_error", False),
    ],
)
def test_a_refusal_is_known_by_its_body_or_its_header(response: HttpResponse, error: str, is_final: bool) -> None:
    _, found = ran(login.refresh("us-east-1", OURS, "refresh-1"), response)
    assert (found.error, found.is_final) == (error, is_final)


def test_a_refusal_tells_no_secret() -> None:
    echo = {"error": "invalid_request", "error_description": "secret-1 and refresh-1 are no good"}
    _, found = ran(login.refresh("us-east-1", OURS, "refresh-1"), said(echo, 400))
    assert not {"secret-1", "refresh-1"} & set(found.message.replace("(", " ").split())


@pytest.mark.parametrize("value", [None, -1, 0, "3600", True, 1e300])
def test_times_that_are_none_take_their_defaults(value: Any) -> None:
    _, granted = ran(login.refresh("us-east-1", OURS, "r"), said({"accessToken": "a", "expiresIn": value}))
    assert granted == Granted("a", "", login.DEFAULT_LIFE)
    body = {"deviceCode": "d", "userCode": "u", "expiresIn": value, "interval": value}
    _, device = ran(login.start("us-east-1", OURS, login.BUILDER_ID), said(body))
    assert device == Device("d", "u", "", "", 600.0, 5.0)
    body = {"clientId": "i", "clientSecret": "s", "clientSecretExpiresAt": value}
    assert ran(login.register("us-east-1"), said(body))[1].expires_at is None


@pytest.mark.parametrize("region, host", [("eu-west-1", "oidc.eu-west-1"), ("evil.test/", "oidc.us-east-1")])
def test_the_region_is_the_hosts_only_where_it_is_one(region: str, host: str) -> None:
    asked, _ = ran(login.register(region), said({}))
    assert asked.url == f"https://{host}.amazonaws.com/client/register"


@pytest.mark.parametrize("given", ["javascript:alert(1)", "data:text/html,x", "//evil.example", 5, None, ["https://x"]])
def test_only_a_web_address_becomes_a_link(given: Any) -> None:
    body = {"deviceCode": "c", "userCode": "u", "verificationUri": "https://device.example", "interval": 5}
    _, device = ran(login.start("us-east-1", OURS, login.BUILDER_ID), said({**body, "verificationUriComplete": given}))
    assert isinstance(device, login.Device)
    assert device.verification_uri_complete == "https://device.example"
    _, device = ran(login.start("us-east-1", OURS, login.BUILDER_ID), said({**body, "verificationUri": given}))
    assert isinstance(device, login.Device)
    assert device.verification_uri == ""
