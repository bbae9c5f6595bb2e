"""Amazon Q's addresses and headers in both bindings, its error table, and what validating finds."""

import json
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest

from opus_api.upstreams import UPSTREAMS
from opus_api.upstreams.amazonq_failures import stem
from opus_api.upstreams.amazonq_probe import read_quota
from opus_api.upstreams.base import Credentials, Failure, Probe, Verdict
from opus_api.wire.http import HttpRequest, HttpResponse
from tests.golden.pipeline import Exchange

Q = UPSTREAMS["amazonq"]
ARN = "arn:aws:codewhisperer:eu-central-1:111122223333:profile/ABCDEFGHJKLM"
INVALID = "The bearer token included in the request is invalid."


def credentials(base_url: str = Q.default_base_url, **oidc: Any) -> Credentials:
    options = {option.name: option.default for option in Q.options}
    return Credentials(base_url=base_url, options=options, access_token="the-token", oidc=oidc)


def request(base_url: str = Q.default_base_url, **oidc: Any) -> HttpRequest:
    call = Exchange().parse({"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}]})
    return Q.request(call, "claude-sonnet-4.5", credentials(base_url, **oidc), False)


def test_aws_json_names_the_operation_in_a_header() -> None:
    asked = request()
    assert (asked.method, asked.url) == ("POST", "https://q.us-east-1.amazonaws.com/")
    assert asked.headers == {
        "authorization": "Bearer the-token",
        "content-type": "application/x-amz-json-1.0",
        "accept": "application/vnd.amazon.eventstream",
        "x-amzn-codewhisperer-optout": "true",
        "x-amz-target": "AmazonCodeWhispererStreamingService.GenerateAssistantResponse",
    }


def test_rest_names_the_operation_in_the_path() -> None:
    asked = request(wire="rest")
    assert (asked.method, asked.url) == ("POST", "https://q.us-east-1.amazonaws.com/generateAssistantResponse")
    assert asked.headers["content-type"] == "application/json"
    assert "x-amz-target" not in asked.headers


def test_both_bindings_send_the_same_body() -> None:
    bodies = [json.loads(request(wire=wire).body or b"") for wire in ("aws-json", "rest")]
    for body in bodies:
        body["conversationState"].pop("conversationId")
    assert bodies[0] == bodies[1]


@pytest.mark.parametrize(
    "oidc, base_url, host",
    [
        ({}, Q.default_base_url, "q.us-east-1.amazonaws.com"),
        ({"profile_arn": ARN}, Q.default_base_url, "q.eu-central-1.amazonaws.com"),
        ({"profile_arn": ARN.replace("eu-central-1", "xx-nowhere-9")}, Q.default_base_url, "q.us-east-1.amazonaws.com"),
        ({"profile_arn": ARN, "api_region": "us-east-1"}, Q.default_base_url, "q.us-east-1.amazonaws.com"),
        ({"profile_arn": ARN}, "https://runtime.us-east-1.kiro.dev", "runtime.us-east-1.kiro.dev"),
    ],
)
def test_the_host_follows_the_profile_unless_a_person_says_otherwise(
    oidc: dict[str, str], base_url: str, host: str
) -> None:
    asked = request(base_url, **oidc)
    assert asked.url == f"https://{host}/"
    assert json.loads(asked.body or b"").get("profileArn") == oidc.get("profile_arn")


@pytest.mark.parametrize("token, ends", [("", None), ("t", 1_700_000_000.0)])
def test_an_access_token_that_is_over_is_not_tried(token: str, ends: float | None) -> None:
    call = Exchange().parse({"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}]})
    over = Credentials(
        base_url=Q.default_base_url, options={"origin": "CLI"}, access_token=token, token_expires_at=ends
    )
    with pytest.raises(Failure) as caught:
        Q.request(call, "m", over, False)
    assert caught.value.verdict is Verdict.EXPIRED


@pytest.mark.parametrize(
    "name, own",
    [
        ("claude-sonnet-4-5-20250929", "claude-sonnet-4.5"),
        ("claude-sonnet-4-5", "claude-sonnet-4.5"),
        ("claude-sonnet-4-20250514", "claude-sonnet-4"),
        ("claude-opus-5", "claude-opus-5"),
        ("claude-sonnet-4.5", "claude-sonnet-4.5"),
        ("auto", "auto"),
        ("claude-3-5-sonnet-20241022", "claude-3-5-sonnet-20241022"),
    ],
)
def test_names_are_written_as_the_service_writes_them(name: str, own: str) -> None:
    assert Q.own_name(name) == own


@pytest.mark.parametrize(
    "name",
    [
        "com.amazon.aws.codewhisperer#ThrottlingException",
        "ThrottlingException:http://internal.amazon.com/coral/com.amazon.aws.codewhisperer/",
        "ThrottlingError",
        "throttlingException",
    ],
)
def test_an_errors_name_is_found_in_all_its_forms(name: str) -> None:
    assert stem(name) == "throttling"


# ---- the error table

ERRORS: list[tuple[int, str, str | None, str, Verdict, int]] = [
    (400, "ValidationException", None, "Improperly formed request.", Verdict.CLIENT, 400),
    (400, "ValidationException", "REQUEST_BODY_INVALID", "Improperly formed request.", Verdict.CLIENT, 400),
    (400, "ValidationException", "CONTENT_LENGTH_EXCEEDS_THRESHOLD", "x", Verdict.CLIENT, 400),
    (400, "ValidationException", None, "Input is too long.", Verdict.CLIENT, 400),
    (400, "ValidationException", "INVALID_MODEL_ID", "x", Verdict.NO_MODEL, 404),
    (400, "ValidationException", "INVALID_KMS_GRANT", "x", Verdict.NO_MODEL, 404),
    (400, "ValidationException", None, "profileArn is required for this request.", Verdict.AUTH, 529),
    (400, "ValidationException", None, "The provided credential is invalid", Verdict.AUTH, 529),
    (403, "AccessDeniedException", None, INVALID, Verdict.EXPIRED, 529),
    (401, "ExpiredTokenException", None, "x", Verdict.EXPIRED, 529),
    (403, "AccessDeniedException", "TEMPORARILY_SUSPENDED", "Your User ID temporarily is …", Verdict.SUSPENDED, 529),
    (403, "AccessDeniedException", "FEATURE_NOT_SUPPORTED", "x", Verdict.NO_MODEL, 403),
    (403, "AccessDeniedException", None, "User is not authorized to access this feature", Verdict.NO_MODEL, 403),
    (403, "AccessDeniedException", None, "something else", Verdict.AUTH, 529),
    (429, "ThrottlingException", None, "Too many requests, please wait.", Verdict.RATE, 429),
    (429, "ThrottlingException", "INSUFFICIENT_MODEL_CAPACITY", "x", Verdict.RATE, 429),
    (429, "ThrottlingException", "MONTHLY_REQUEST_COUNT", "x", Verdict.QUOTA, 429),
    (400, "ThrottlingException", "MONTHLY_REQUEST_COUNT", "x", Verdict.QUOTA, 429),
    (429, "ThrottlingException", "DAILY_REQUEST_COUNT", "x", Verdict.QUOTA, 429),
    (402, "ServiceQuotaExceededException", "OVERAGE_REQUEST_LIMIT_EXCEEDED", "x", Verdict.QUOTA, 429),
    (400, "ServiceQuotaExceededException", None, "x", Verdict.QUOTA, 429),
    (500, "InternalServerException", "MODEL_TEMPORARILY_UNAVAILABLE", "x", Verdict.TRANSIENT, 502),
    (500, "InternalServerException", None, "Encountered unexpectedly high load.", Verdict.TRANSIENT, 502),
    (500, "InternalServerException", None, "x", Verdict.TRANSIENT, 502),
    (503, "ServiceUnavailableException", None, "temporarily unavailable", Verdict.TRANSIENT, 502),
    (409, "ConflictException", "CUSTOMER_KMS_KEY_DISABLED", "x", Verdict.AUTH, 529),
    (404, "ResourceNotFoundException", None, "x", Verdict.AUTH, 529),
]  # fmt: skip


def refusal(status: int, name: str, reason: str | None, message: str, wire: str) -> HttpResponse:
    if wire == "rest":
        body: dict[str, Any] = {"message": message, "reason": reason}
        headers = {"x-amzn-errortype": f"{name}:http://internal.amazon.com/", "x-amzn-requestid": "r-1"}
    else:
        body = {"__type": f"com.amazon.aws.codewhisperer#{name}", "message": message, "reason": reason}
        headers = {"x-amzn-requestid": "r-1"}
    return HttpResponse(status, headers, json.dumps(body).encode())


@pytest.mark.parametrize("wire", ["aws-json", "rest"])
@pytest.mark.parametrize(
    "status, name, reason, message, verdict, seen", ERRORS, ids=[f"{e[1]} {e[2]} {e[3]}" for e in ERRORS]
)
def test_the_error_table_holds_in_both_bindings(
    status: int, name: str, reason: str | None, message: str, verdict: Verdict, seen: int, wire: str
) -> None:
    failure = Q.failure(refusal(status, name, reason, message, wire), credentials(wire=wire))
    assert (failure.verdict, failure.status, failure.upstream_request_id) == (verdict, seen, "r-1")


def judged(reason: str, **oidc: Any) -> Failure:
    return Q.failure(refusal(429, "ThrottlingException", reason, "x", "rest"), credentials(**oidc))


def test_a_prompt_that_is_too_long_is_said_in_the_words_that_clients_act_on() -> None:
    failure = Q.failure(refusal(400, "ValidationException", None, "Input is too long.", "rest"), credentials())
    assert failure.message.startswith("prompt is too long")


def test_missing_capacity_concerns_one_model_of_the_account() -> None:
    failure = judged("INSUFFICIENT_MODEL_CAPACITY")
    assert failure.model_only
    assert failure.retry_after is not None
    assert 30 <= failure.retry_after <= 60


def wait_from(monkeypatch: pytest.MonkeyPatch, now: str, reason: str, **oidc: Any) -> float:
    monkeypatch.setattr(time, "time", datetime.fromisoformat(now).replace(tzinfo=UTC).timestamp)
    return judged(reason, **oidc).retry_after or 0.0


def test_a_quota_rests_until_it_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    hour = 3600.0
    assert wait_from(monkeypatch, "2026-11-30T23:00:00", "MONTHLY_REQUEST_COUNT") == hour
    assert wait_from(monkeypatch, "2026-12-31T00:00:00", "MONTHLY_REQUEST_COUNT") == 24 * hour
    assert wait_from(monkeypatch, "2026-11-01T00:00:00", "MONTHLY_REQUEST_COUNT") == 30 * 24 * hour
    assert wait_from(monkeypatch, "2026-11-30T23:00:00", "DAILY_REQUEST_COUNT") == hour
    told = datetime(2026, 12, 3, tzinfo=UTC).timestamp()
    assert wait_from(monkeypatch, "2026-12-01T00:00:00", "MONTHLY_REQUEST_COUNT", quota_resets_at=told) == 48 * hour


def test_an_error_tells_clients_neither_token_nor_address() -> None:
    message = f"token the-token at {Q.default_base_url}"
    failure = Q.failure(refusal(500, "InternalServerException", None, message, "rest"), credentials())
    assert "the-token" not in failure.message
    assert "amazonaws" not in failure.message


# ---- validating

MODELS = {"models": [{"modelId": "claude-sonnet-4.5"}, {"modelId": "auto"}], "nextToken": None}
USAGE = {
    "nextDateReset": 1796083200.5,
    "usageBreakdownList": [
        {"displayName": "Credit", "currentUsage": 12, "currentUsageWithPrecision": 12.4, "usageLimit": 50}
    ],
}


def probed(*answers: HttpResponse | Failure, **oidc: Any) -> tuple[Probe, list[HttpRequest]]:
    flow = Q.probe(credentials(**oidc))
    asked = []
    waiting = list(answers)
    try:
        asked.append(next(flow))
        while True:
            answer = waiting.pop(0)
            asked.append(flow.throw(answer) if isinstance(answer, Failure) else flow.send(answer))
    except StopIteration as end:
        return end.value, asked


def ok(body: Mapping[str, Any]) -> HttpResponse:
    return HttpResponse(200, {}, json.dumps(body).encode())


def test_validating_lists_the_models_and_tells_the_usage() -> None:
    probe, asked = probed(ok(MODELS), ok(USAGE))
    assert probe.ok
    assert probe.models == ["claude-sonnet-4.5", "auto"]
    assert probe.quota == {"used": 12.4, "limit": 50.0, "unit": "credits", "resets_at": 1796083200.5}
    assert probe.message == "The account works; 2 models. 12.4 of 50 credits used."
    assert [request.headers["x-amz-target"].partition(".")[2] for request in asked] == [
        "ListAvailableModels",
        "GetUsageLimits",
    ]


def test_validating_over_rest_asks_by_query() -> None:
    _, asked = probed(ok(MODELS), ok(USAGE), wire="rest", profile_arn=ARN)
    assert [request.method for request in asked] == ["GET", "GET"]
    assert [urlsplit(request.url).path for request in asked] == ["/ListAvailableModels", "/getUsageLimits"]
    models, usage = (dict(parse_qsl(urlsplit(request.url).query)) for request in asked)
    assert models == {"origin": "CLI", "profileArn": ARN, "maxResults": "50"}
    assert usage == {
        "origin": "CLI", "profileArn": ARN, "resourceType": "AGENTIC_REQUEST", "isEmailRequired": "false",
    }  # fmt: skip
    assert not any("content-type" in request.headers for request in asked)


def test_a_list_of_several_pages_is_read_to_its_end() -> None:
    first = ok({"models": [{"modelId": "a"}], "nextToken": "next"})
    probe, asked = probed(first, ok({"models": [{"modelId": "b"}]}), ok({}))
    assert probe.models == ["a", "b"]
    assert json.loads(asked[1].body or b"")["nextToken"] == "next"
    assert probe.quota is None


TEAM = "https://team.awsapps.com/start"
NO_PROFILES = ok({"profiles": []})
PROFILE = ok({"profiles": [{"arn": "nonsense"}, {"arn": ARN}]})
AWAY = Failure(Verdict.UNREACHABLE, 502, "api_error", "away")
US, EU = "q.us-east-1.amazonaws.com", "q.eu-central-1.amazonaws.com"


@pytest.mark.parametrize(
    "answers, oidc, arn, hosts",
    [
        ([PROFILE], {}, ARN, [US, EU, EU]),  # models and usage are asked where the profile is
        ([NO_PROFILES, PROFILE], {}, ARN, [US, EU, EU, EU]),
        ([AWAY, PROFILE], {}, ARN, [US, EU, EU, EU]),
        ([refusal(403, "AccessDeniedException", None, "x", "rest"), PROFILE], {}, ARN, [US, EU, EU, EU]),
        ([HttpResponse(200, {}, b"<html>"), ok({"profiles": 7})], {}, None, [US, EU, US, US]),
        ([NO_PROFILES], {"api_region": "eu-central-1"}, None, [EU, EU, EU]),
        ([], {"profile_arn": ARN}, None, [EU, EU]),
        ([], {"start_url": "https://view.awsapps.com/start"}, None, [US, US]),
    ],
)
def test_validating_finds_the_profile_of_an_organisations_account(
    answers: list[HttpResponse | Failure], oidc: dict[str, str], arn: str | None, hosts: list[str]
) -> None:
    probe, asked = probed(*answers, ok(MODELS), ok(USAGE), **{"start_url": TEAM, **oidc})
    assert probe.places == ({"profile_arn": arn} if arn else {})
    assert [urlsplit(request.url).netloc for request in asked] == hosts
    assert ("No profile" in probe.message) == (arn is None and "profile_arn" not in oidc and "start_url" not in oidc)


@pytest.mark.parametrize(
    "answer, verdict",
    [
        (refusal(403, "AccessDeniedException", None, INVALID, "rest"), Verdict.EXPIRED),
        (refusal(403, "AccessDeniedException", "TEMPORARILY_SUSPENDED", "x", "rest"), Verdict.SUSPENDED),
        (refusal(500, "InternalServerException", None, "x", "rest"), Verdict.TRANSIENT),
        (HttpResponse(200, {}, b"<html>"), Verdict.TRANSIENT),
    ],
)
def test_validating_tells_what_is_wrong(answer: HttpResponse, verdict: Verdict) -> None:
    probe, _ = probed(answer)
    assert not probe.ok
    assert probe.failure is not None
    assert probe.failure.verdict is verdict


def test_a_suspended_account_may_still_list_models() -> None:
    probe, _ = probed(ok(MODELS), refusal(403, "AccessDeniedException", "TEMPORARILY_SUSPENDED", "x", "rest"))
    assert (probe.ok, probe.message) == (False, "suspended")


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"limits": 3},
        {"limits": [{"currentUsage": "x"}]},
        {"usageBreakdownList": [None]},
        {"limits": [{"currentUsage": 1e300, "totalUsageLimit": -1}]},
    ],
)
def test_usage_is_read_with_care(body: dict[str, Any]) -> None:
    assert read_quota(body) is None


def test_a_reset_that_is_no_moment_is_none() -> None:
    body = {"limits": [{"currentUsage": 1, "totalUsageLimit": 2}], "nextDateReset": 1e300}
    assert (read_quota(body) or {})["resets_at"] is None


def test_usage_in_the_older_form_is_read_as_well() -> None:
    body = {"limits": [{"type": "AGENTIC_REQUEST", "currentUsage": 12, "totalUsageLimit": 50}], "nextDateReset": 5}
    assert read_quota(body) == {"used": 12.0, "limit": 50.0, "unit": "requests", "resets_at": 5.0}
