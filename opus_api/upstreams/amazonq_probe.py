"""What can be asked about an Amazon Q account at no cost: its profile, its models, its usage. Pure, as flows."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from opus_api.upstreams import amazonq_failures
from opus_api.upstreams.amazonq_login import BUILDER_ID
from opus_api.upstreams.amazonq_service import (
    MODELS,
    PROFILE_ARN,
    PROFILES,
    REGIONS,
    USAGE,
    about_account,
    has_own_address,
    question,
)
from opus_api.upstreams.base import Credentials, Failure, Probe, Verdict
from opus_api.wire import jsons
from opus_api.wire.errors import Phrase
from opus_api.wire.http import Flow, HttpResponse
from opus_api.wire.request import Body

MOST_PAGES = 10  # of a list of models
PLURALS = {"credit": "credits"}  # of units


def probe(credentials: Credentials) -> Flow[Probe]:
    """The profile where one is missing, then the models, then the usage."""
    places: dict[str, str] = {}
    if _lacks_profile(credentials) and (arn := (yield from _find_profile(credentials))):
        places["profile_arn"] = arn
        credentials = replace(credentials, oidc={**credentials.oidc, **places})
    listed = yield from _models(credentials)
    if isinstance(listed, HttpResponse):
        return refused(listed, amazonq_failures.of_response(listed, credentials))
    usage = {**about_account(credentials), "resourceType": "AGENTIC_REQUEST", "isEmailRequired": False}
    response = yield question(USAGE, usage, credentials)
    quota = None
    if response.status == 200:
        quota = read_quota(_parsed(response.body))
    elif (failure := amazonq_failures.of_response(response, credentials)).verdict is Verdict.SUSPENDED:
        return refused(response, failure)
    found = _found(len(listed), quota)
    if _lacks_profile(credentials):
        found = Phrase("%(said)s No profile of the organisation was found; set its ARN.", said=found)
    return Probe(True, found, listed, quota=quota, places=places)


def refused(response: HttpResponse, failure: Failure) -> Probe:
    if response.status == 200:
        wrong = Phrase("The service did not answer with a list of models; is the base URL right?")
        return Probe(False, wrong, failure=failure)
    if failure.verdict in (Verdict.RATE, Verdict.QUOTA):
        return Probe(True, Phrase("The account works, but its rate or quota is used up."), failure=failure)
    if failure.verdict is Verdict.SUSPENDED:
        return Probe(False, "suspended", failure=failure)
    if failure.verdict is Verdict.EXPIRED:
        return Probe(False, Phrase("The access token was refused; sign in again."), failure=failure)
    said = Phrase("The service answered %(status)s: %(said)s", status=response.status, said=failure.message)
    return Probe(False, said, failure=failure)


def _found(models: int, quota: Mapping[str, Any] | None) -> Phrase:
    if quota is None:
        return Phrase("The account works; %(n)s models.", n=models)
    used, limit, unit = quota["used"], quota["limit"], quota["unit"]
    return Phrase(
        "The account works; %(n)s models. %(used)s of %(limit)s %(unit)s used.",
        n=models,
        used=f"{used:g}",
        limit=f"{limit:g}",
        unit=Phrase(unit),
    )


# ---- the profile


def _lacks_profile(credentials: Credentials) -> bool:
    """An organisation's account needs one; a person's own has none."""
    start_url = credentials.oidc.get("start_url") or BUILDER_ID
    return start_url != BUILDER_ID and not credentials.oidc.get("profile_arn")


def _find_profile(credentials: Credentials) -> Flow[str]:
    """The ARN of the first profile, "" when there is none. It may be in any region; one that fails is passed over."""
    is_settled = has_own_address(credentials) or credentials.oidc.get("api_region")
    for region in (None,) if is_settled else REGIONS:
        there = credentials
        if region is not None:
            there = replace(credentials, oidc={**credentials.oidc, "api_region": region})
        try:
            response = yield question(PROFILES, {"maxResults": 10}, there)
        except Failure:
            continue
        for entry in _objects(_parsed(response.body).get("profiles")):
            if isinstance(entry.get("arn"), str) and PROFILE_ARN.fullmatch(entry["arn"]):
                return str(entry["arn"])
    return ""


# ---- the models


def _models(credentials: Credentials) -> Flow[list[str] | HttpResponse]:
    """The ids of the models, or the answer that is no list."""
    names: list[str] = []
    first: Body = {**about_account(credentials), "maxResults": 50}
    page = first
    for _ in range(MOST_PAGES):
        response = yield question(MODELS, page, credentials)
        body = _parsed(response.body)
        if response.status != 200 or not isinstance(body.get("models"), list):
            return response
        entries = _objects(body["models"])
        names += [entry["modelId"] for entry in entries if isinstance(entry.get("modelId"), str)]
        if not (isinstance(body.get("nextToken"), str) and body["nextToken"]):
            break
        page = {**first, "nextToken": body["nextToken"]}
    return list(dict.fromkeys(names))


# ---- the usage


def read_quota(body: Mapping[str, Any]) -> dict[str, Any] | None:
    """{"used", "limit", "unit", "resets_at"} of GetUsageLimits, None when it tells of no limit."""
    resets = _number(body.get("nextDateReset"))
    for entry in _objects(body.get("usageBreakdownList")):
        used = _number(entry.get("currentUsageWithPrecision"), entry.get("currentUsage"))
        limit = _number(entry.get("usageLimitWithPrecision"), entry.get("usageLimit"))
        if used is not None and limit is not None:
            unit = str(entry.get("displayName") or entry.get("resourceType") or "requests").lower()[:40]
            resets = _number(entry.get("nextDateReset"), resets)
            return {"used": used, "limit": limit, "unit": PLURALS.get(unit, unit), "resets_at": resets}
    for entry in _objects(body.get("limits")):
        used, limit = _number(entry.get("currentUsage")), _number(entry.get("totalUsageLimit"))
        if used is not None and limit is not None:
            return {"used": used, "limit": limit, "unit": "requests", "resets_at": resets}
    return None


def _parsed(data: bytes) -> Mapping[str, Any]:
    try:
        body = jsons.loads(data)
    except jsons.JsonError:
        return {}
    return body if isinstance(body, dict) else {}


def _objects(value: Any) -> list[Mapping[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _number(*values: Any) -> float | None:
    """The first of them that is a number of a sensible size."""
    numbers = (v for v in values if isinstance(v, (int, float)) and not isinstance(v, bool) and 0 <= v < MOST_NUMBER)
    return next(map(float, numbers), None)


MOST_NUMBER = 1e11  # above it a number is no moment of ours either
