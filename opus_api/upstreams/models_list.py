"""What ``GET …/models`` says of a credential and of what it can reach: the free check of most providers. Pure."""

from opus_api.upstreams.base import Failure, Probe, Verdict
from opus_api.upstreams.failures import broken
from opus_api.wire import jsons
from opus_api.wire.errors import Phrase
from opus_api.wire.http import HttpResponse


def read_models(response: HttpResponse, failure: Failure, url: str) -> Probe:
    """200 is good, 401 and 403 bad, 402 and 429 good but spent. ``failure`` is the response judged as a refusal."""
    if response.status == 200:
        return _listed(response.body, url)
    said = {"status": response.status, "said": failure.message}
    if failure.verdict in (Verdict.RATE, Verdict.QUOTA):
        return Probe(True, Phrase("The key works, but its rate or quota is used up."), failure=failure)
    if failure.verdict is Verdict.AUTH:
        return Probe(False, Phrase("The key was refused (%(status)s): %(said)s", **said), failure=failure)
    if response.status in (404, 405):
        wrong = Phrase("%(url)s answered %(status)s; is the base URL right?", url=url, **said)
        return Probe(False, wrong, failure=failure)
    return Probe(False, Phrase("%(url)s answered %(status)s: %(said)s", url=url, **said), failure=failure)


def _listed(body: bytes, url: str) -> Probe:
    names = model_names(body)
    if names is None:
        message = Phrase("%(url)s did not answer with a list of models; is the base URL right?", url=url)
        return Probe(False, message, failure=broken("no list"))
    return Probe(True, Phrase("The key works; %(n)s models.", n=len(names)), names)


def model_names(body: bytes) -> list[str] | None:
    """The ids of a model list, None when it is none."""
    try:
        data = jsons.loads(body)
    except jsons.JsonError:
        return None
    entries = data.get("data") if isinstance(data, dict) else data
    if not isinstance(entries, list):
        return None
    return [entry["id"] for entry in entries if isinstance(entry, dict) and isinstance(entry.get("id"), str)]
