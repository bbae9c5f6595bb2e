"""Amazon Q and AWS's sign-in service in one server on loopback, as far as they are known; nothing of it is AWS.

    python -m tests.fakes.amazonq

serves them and a TLS forward proxy for the vendors' host names, and prints the two lines to export before the gateway
is started. It judges requests by ``amazonq_rules``, answers in both bindings, and does on demand what goes wrong in
practice: a model name of SCENARIOS says what, and so do the attributes of AmazonQ.
"""

import itertools
import json
import random
import secrets
import ssl
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from opus_api.wire.eventstream import encode
from tests.fakes.amazonq_rules import problems
from tests.fakes.certificates import authority
from tests.fakes.proxy import Proxy

Body = dict[str, Any]
NAMESPACE = "com.amazon.aws.codewhisperer"
DEVICE_CODE = "urn:ietf:params:oauth:grant-type:device_code"
HOSTS = ("oidc.us-east-1.amazonaws.com", "oidc.eu-central-1.amazonaws.com", "q.us-east-1.amazonaws.com",
         "q.eu-central-1.amazonaws.com")  # fmt: skip
MODELS = ("auto", "claude-sonnet-4", "claude-sonnet-4.5", "claude-haiku-4.5", "claude-opus-4.5")
BUILDER_ID = "https://view.awsapps.com/start"
ARN = "arn:aws:codewhisperer:us-east-1:111122223333:profile/ABCDEFGHJKLM"
INVALID_BEARER = "The bearer token included in the request is invalid."


@dataclass
class Refusal(Exception):
    status: int
    name: str
    message: str
    reason: str | None = None


# model -> what it refuses with, whatever is asked
REFUSALS = {
    "fake-malformed": Refusal(400, "ValidationException", "Improperly formed request.", "REQUEST_BODY_INVALID"),
    "fake-too-long": Refusal(400, "ValidationException", "Input is too long.", "CONTENT_LENGTH_EXCEEDS_THRESHOLD"),
    "fake-no-model": Refusal(400, "ValidationException", "Invalid model.", "INVALID_MODEL_ID"),
    "fake-suspended": Refusal(403, "AccessDeniedException", "Your User ID (u-1) temporarily is suspended",
                              "TEMPORARILY_SUSPENDED"),
    "fake-throttled": Refusal(429, "ThrottlingException", "Too many requests, please wait before trying again."),
    "fake-no-capacity": Refusal(429, "ThrottlingException", "No capacity.", "INSUFFICIENT_MODEL_CAPACITY"),
    "fake-monthly": Refusal(400, "ThrottlingException", "Maximum Request reached for this month.",
                            "MONTHLY_REQUEST_COUNT"),
    "fake-busy": Refusal(500, "InternalServerException", "Encountered unexpectedly high load when processing the "
                         "request, please try again."),
    "fake-away": Refusal(503, "ServiceUnavailableException", "temporarily unavailable"),
}  # fmt: skip
# model -> what happens after some text
FAULTS = ("fake-exception", "fake-error", "fake-cut", "fake-checksum", "fake-half-tool", "fake-unknown-event",
          "fake-reasoning", "fake-silent")  # fmt: skip
SCENARIOS = (*REFUSALS, *FAULTS)


@dataclass
class Device:
    """One sign-in that was begun. ``answers``: what its next polls get before its state counts."""

    client_id: str
    user_code: str
    start_url: str
    expires_at: float
    state: str = "pending"  # approved | denied | used
    polled_at: float = 0.0
    answers: list[str] = field(default_factory=list)


@dataclass
class Session:
    """One person's sign-in and its present tokens."""

    client_id: str
    start_url: str
    refresh_token: str
    access_token: str = ""
    access_ends: float = 0.0
    previous: str = ""  # the refresh token before, good for as long as the new tokens were never used
    refreshes: int = 0
    dead: bool = False


class AmazonQ:
    def __init__(self) -> None:
        self.token_life = 3600.0
        self.device_life = 600.0
        self.client_life = 90 * 86_400.0
        self.interval = 1
        self.is_strict = False  # who polls more often than the interval is told to slow down
        self.polls: list[str] = []  # what the first polls of the next sign-in get: authorization_pending, slow_down …
        self.rotates = True
        self.overlap = False  # an answer that never arrived may be asked for again
        self.refusals: dict[str, Refusal] = {}  # operation or model -> what it refuses with
        self.token_errors: list[tuple[int, str]] = []  # what the next refreshes get: (status, error)
        self.token_delay = 0.0
        self.used = 12.4
        self.page = 50  # models of one answer, at most
        self.profile = ARN  # of every organisation; it is found in its own region only
        self.suspended: set[str] = set()  # access tokens
        self.asked: list[tuple[str, Body]] = []  # (operation, body)
        self.headers: list[dict[str, str]] = []
        self.refreshed: list[str] = []  # refresh tokens as they were presented with success
        self.reused: list[str] = []  # presented again after they had been replaced
        self.clients: dict[str, tuple[str, float]] = {}
        self.devices: dict[str, Device] = {}
        self.sessions: list[Session] = []
        self.split = random.Random(7)
        self._lock = threading.RLock()
        self._numbers = itertools.count(1)
        self._servers: list[ThreadingHTTPServer] = []
        self.url = f"http://127.0.0.1:{self._serve()}"

    def behind_proxy(self, folder: Path) -> tuple[Proxy, Path]:
        """(a forward proxy under whose names it is the vendor, the certificate of who vouches for that)"""
        trusted, context = authority(folder, *HOSTS)
        return Proxy(self._serve(context)), trusted

    def _serve(self, tls: ssl.SSLContext | None = None) -> int:
        server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        server.daemon_threads = True
        if tls:  # the handshake is the handler's
            server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        self._servers.append(server)
        return server.server_port

    def stop(self) -> None:
        for server in self._servers:
            server.shutdown()
            server.server_close()

    def of(self, operation: str) -> list[Body]:
        return [body for name, body in self.asked if name == operation]

    def signed_in(self, start_url: str = BUILDER_ID) -> Session:
        """A person who has signed in already, with the client the tokens were issued to."""
        client = self.register({"clientName": "tests", "clientType": "public"})
        session = Session(client["clientId"], start_url, self._token("aor"))
        self._renew(session)
        self.sessions.append(session)
        return session

    def secret_of(self, session: Session) -> str:
        return self.clients[session.client_id][0]

    def expire(self) -> None:
        """Every access token is over, before its time."""
        for session in self.sessions:
            session.access_ends = 0.0

    def approve(self, user_code: str, state: str = "approved") -> None:
        device = next(device for device in self.devices.values() if device.user_code == user_code)
        device.state = state

    # ---- signing in: rest-json with camel case, errors as {"error", "error_description"}

    def register(self, body: Body) -> Body:
        if body.get("clientType") != "public" or not body.get("clientName"):
            raise Refusal(400, "InvalidClientMetadataException", "invalid_client_metadata")
        client_id, secret = self._token("client"), self._token("secret") + "x" * 400
        ends = time.time() + self.client_life
        self.clients[client_id] = (secret, ends)
        return {"clientId": client_id, "clientSecret": secret, "clientIdIssuedAt": int(time.time()),
                "clientSecretExpiresAt": int(ends)}  # fmt: skip

    def authorize(self, body: Body) -> Body:
        self._check_client(body)
        if not str(body.get("startUrl", "")).startswith("https://"):
            raise Refusal(400, "InvalidRequestException", "invalid_request")
        number = next(self._numbers)
        user_code, code = f"ABCD-{number:04}", self._token("dev")
        device = Device(body["clientId"], user_code, body["startUrl"], time.time() + self.device_life)
        device.answers, self.polls = self.polls, []
        self.devices[code] = device
        return {"deviceCode": code, "userCode": user_code, "verificationUri": f"{self.url}/device",
                "verificationUriComplete": f"{self.url}/device?user_code={user_code}",
                "expiresIn": int(self.device_life), "interval": self.interval}  # fmt: skip

    def token(self, body: Body) -> Body:
        self._check_client(body)
        match body.get("grantType"):
            case "urn:ietf:params:oauth:grant-type:device_code":
                return self._granted(self._poll(body))
            case "refresh_token":
                if self.token_delay:
                    time.sleep(self.token_delay)
                return self._granted(self._refresh(body))
            case _:
                raise Refusal(400, "UnsupportedGrantTypeException", "unsupported_grant_type")

    def _check_client(self, body: Body) -> None:
        secret, ends = self.clients.get(str(body.get("clientId")), ("", 0.0))
        if secret != body.get("clientSecret") or ends <= time.time():
            raise Refusal(401, "InvalidClientException", "invalid_client")

    def _poll(self, body: Body) -> Session:
        with self._lock:
            device = self.devices.get(str(body.get("deviceCode")))
            if device is None or device.client_id != body["clientId"] or device.state == "used":
                raise Refusal(400, "InvalidGrantException", "invalid_grant")
            since, device.polled_at = time.time() - device.polled_at, time.time()
            if self.is_strict and since < self.interval:
                raise Refusal(400, "SlowDownException", "slow_down")
            if device.answers:
                raise Refusal(400, "", device.answers.pop(0))
            if device.state == "denied":
                raise Refusal(400, "AccessDeniedException", "access_denied")
            if device.expires_at <= time.time():
                raise Refusal(400, "ExpiredTokenException", "expired_token")
            if device.state != "approved":
                raise Refusal(400, "AuthorizationPendingException", "authorization_pending")
            device.state = "used"
            session = Session(device.client_id, device.start_url, self._token("aor"))
            self._renew(session)
            self.sessions.append(session)
            return session

    def _refresh(self, body: Body) -> Session:
        with self._lock:
            if self.token_errors:
                status, error = self.token_errors.pop(0)
                raise Refusal(status, "", error)
            token = str(body.get("refreshToken"))
            session = next((s for s in self.sessions if token in (s.refresh_token, s.previous)), None)
            if session is None or session.dead or session.client_id != body["clientId"]:
                self.reused.append(token)
                raise Refusal(400, "InvalidGrantException", "invalid_grant")
            if token == session.previous and not self.overlap:
                self.reused.append(token)
                raise Refusal(400, "InvalidGrantException", "invalid_grant")
            if token == session.refresh_token and self.rotates:
                session.previous, session.refresh_token = token, self._token("aor")
            self.refreshed.append(token)
            self._renew(session)
            return session

    def _renew(self, session: Session) -> None:
        session.access_token, session.access_ends = self._token("aoa"), time.time() + self.token_life
        session.refreshes += 1

    def _granted(self, session: Session) -> Body:
        answer: Body = {"accessToken": session.access_token, "tokenType": "Bearer",
                        "expiresIn": max(1, int(self.token_life)), "idToken": None}  # fmt: skip
        if self.rotates or session.refreshes == 1:
            answer["refreshToken"] = session.refresh_token
        return answer

    def _token(self, word: str) -> str:
        return f"{word}-{secrets.token_hex(12)}"

    # ---- the service

    def check_bearer(self, headers: dict[str, str]) -> Session:
        token = headers.get("authorization", "").removeprefix("Bearer ")
        session = next((s for s in self.sessions if s.access_token == token), None)
        if session is None or session.access_ends <= time.time():
            raise Refusal(403, "AccessDeniedException", INVALID_BEARER)
        if token in self.suspended:
            raise REFUSALS["fake-suspended"]
        session.previous = ""  # the new tokens have arrived
        return session

    def models(self, body: Body) -> Body:
        if not body.get("origin"):
            raise Refusal(400, "ValidationException", "Improperly formed request.")
        listed = [{"modelId": name, "modelName": name, "tokenLimits": {"maxInputTokens": 200_000}}
                  for name in (*MODELS, *SCENARIOS)]  # fmt: skip
        start = int(body.get("nextToken") or 0)
        end = start + min(int(body.get("maxResults", 50)), self.page)
        return {"models": listed[start:end], "defaultModel": {"modelId": "claude-sonnet-4.5"},
                "nextToken": str(end) if end < len(listed) else None}  # fmt: skip

    def profiles(self, session: Session, host: str) -> Body:
        if session.start_url == BUILDER_ID:
            raise Refusal(403, "AccessDeniedException", "AWS Builder ID is not supported for this operation.")
        is_here = self.profile.split(":")[3] in host
        listed = [{"arn": self.profile, "profileName": "Team", "status": "ACTIVE"}] if is_here else []
        return {"profiles": listed, "nextToken": None}

    def usage(self) -> Body:
        entry = {"resourceType": "CREDIT", "displayName": "Credit", "currentUsage": int(self.used),
                 "currentUsageWithPrecision": self.used, "usageLimit": 50, "usageLimitWithPrecision": 50.0,
                 "nextDateReset": time.time() + 9 * 86_400}  # fmt: skip
        return {"limits": [], "nextDateReset": time.time() + 9 * 86_400, "usageBreakdownList": [entry],
                "subscriptionInfo": {"type": "Q_DEVELOPER_STANDALONE_FREE"}}  # fmt: skip

    def chat(self, body: Body, session: Session) -> Iterator[bytes | float]:
        """The frames of an answer, and seconds of silence between them."""
        if broken := problems(body):
            raise Refusal(400, "ValidationException", "Improperly formed request.", "; ".join(broken))
        if session.start_url != BUILDER_ID and "profileArn" not in body:
            raise Refusal(400, "ValidationException", "profileArn is required for this request.")
        model = body["conversationState"]["currentMessage"]["userInputMessage"].get("modelId", "auto")
        refusal = self.refusals.get(model) or REFUSALS.get(model)
        if refusal:
            raise refusal
        if model not in (*MODELS, *FAULTS):
            raise REFUSALS["fake-no-model"]
        return _answer(body["conversationState"], model)


# ---- what the model says


def event(kind: str, payload: Any) -> bytes:
    headers = [(":message-type", "event"), (":event-type", kind), (":content-type", "application/json")]
    return encode(headers, json.dumps(payload, ensure_ascii=False).encode())


def _answer(state: Body, model: str) -> Iterator[bytes | float]:
    yield event("initial-response", {"conversationId": state["conversationId"]})
    yield event("messageMetadataEvent", {"conversationId": state["conversationId"], "utteranceId": "u-1"})
    current = state["currentMessage"]["userInputMessage"]
    context = current.get("userInputMessageContext", {})
    if model == "fake-reasoning":
        yield event("reasoningContentEvent", {"text": "Let me think."})
        yield event("reasoningContentEvent", {"signature": "sig-1"})
    if model == "fake-unknown-event":
        yield event("brandNewEvent", {"content": "not for you"})
    for piece in _pieces(_words(current, context, model)):
        yield event("assistantResponseEvent", {"content": piece, "modelId": model})
    yield from _AFTER.get(model, lambda: ())()
    tools = context.get("tools", [])
    if tools and not context.get("toolResults") and "tool" in current["content"].lower():
        yield from _tool_call(tools[0]["toolSpecification"], f"tooluse_{secrets.token_hex(8)}")
    usage = {"uncachedInputTokens": 20, "outputTokens": 7, "totalTokens": 27, "cacheReadInputTokens": 0}
    yield event("metadataEvent", {"tokenUsage": usage})
    yield event("contextUsageEvent", {"contextUsagePercentage": 1.53})
    yield event("meteringEvent", {"usage": 0.02, "unit": "credit", "unitPlural": "credits"})


def _words(current: Body, context: Body, model: str) -> str:
    if results := context.get("toolResults"):
        return f"The tool said: {results[-1]['content'][0].get('text', '')}"
    return f"You are talking to the fake {model}, 你好 😀. You said: {current['content'][-200:]}"


def _pieces(text: str) -> Iterator[str]:
    return (text[start : start + 9] for start in range(0, len(text), 9))


def _tool_call(tool: Body, id: str) -> Iterator[bytes]:
    schema = tool["inputSchema"]["json"]
    text = json.dumps(dict.fromkeys(schema.get("properties", {}), "practice"))
    named = {"toolUseId": id, "name": tool["name"]}
    yield event("toolUseEvent", named)
    for start in range(0, len(text), 5):
        yield event("toolUseEvent", {**named, "input": text[start : start + 5]})
    yield event("toolUseEvent", {**named, "stop": True})


class Cut(Exception):
    """The connection is closed where it stands."""


def _exception() -> Iterator[bytes]:
    headers = [(":message-type", "exception"), (":exception-type", "throttlingException")]
    yield encode(headers, b'{"message":"slow down","reason":null}')


def _error() -> Iterator[bytes]:
    yield encode([(":message-type", "error"), (":error-code", "500"), (":error-message", "it broke")], b"")


def _cut() -> Iterator[bytes]:
    yield event("assistantResponseEvent", {"content": "never whole"})[:-7]
    raise Cut


def _checksum() -> Iterator[bytes]:
    yield event("assistantResponseEvent", {"content": "damaged"})[:-1] + b"!"


def _half_tool() -> Iterator[bytes]:
    yield event("toolUseEvent", {"toolUseId": "tooluse_1", "name": "f", "input": '{"a":'})
    raise Cut


def _silent() -> Iterator[float]:
    yield 3600.0


_AFTER: dict[str, Callable[[], Any]] = {
    "fake-exception": _exception,
    "fake-error": _error,
    "fake-cut": _cut,
    "fake-checksum": _checksum,
    "fake-half-tool": _half_tool,
    "fake-silent": _silent,
}

# ---- HTTP

OIDC = {"/client/register": AmazonQ.register, "/device_authorization": AmazonQ.authorize, "/token": AmazonQ.token}
# How a request names its operation: in x-amz-target, or in method and path.
TARGETS = {
    "AmazonCodeWhispererStreamingService.GenerateAssistantResponse": "GenerateAssistantResponse",
    **{f"AmazonCodeWhispererService.{name}": name
       for name in ("ListAvailableModels", "GetUsageLimits", "ListAvailableProfiles")},
}  # fmt: skip
PATHS = {
    "POST /generateAssistantResponse": "GenerateAssistantResponse",
    "GET /ListAvailableModels": "ListAvailableModels",
    "GET /getUsageLimits": "GetUsageLimits",
    "POST /ListAvailableProfiles": "ListAvailableProfiles",
}
PAGE = """<!doctype html><title>Fake sign-in</title><h1>Fake sign-in</h1><form method="post">
<label>Code <input name="user_code" value="%s"></label> <button name="answer" value="approved">Approve</button>
<button name="answer" value="denied">Deny</button></form><p>%s</p>"""


def _handler(service: AmazonQ) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            self._serve({name: values[0] for name, values in parse_qs(urlsplit(self.path).query).items()})

        def do_POST(self) -> None:
            data = self.rfile.read(int(self.headers.get("content-length") or 0))
            if urlsplit(self.path).path == "/device":
                self._approve({name: values[0] for name, values in parse_qs(data.decode()).items()})
                return
            self._serve(json.loads(data or b"{}"))

        def _serve(self, body: Body) -> None:
            path = urlsplit(self.path).path
            headers = {name.lower(): value for name, value in self.headers.items()}
            service.headers.append(headers)
            if path == "/device":
                self._page(body.get("user_code", ""), "")
            elif path in OIDC:
                self._oidc(path, body)
            else:
                target = headers.get("x-amz-target", "")
                named = TARGETS.get(target) if target else PATHS.get(f"{self.command} {path}")
                self._service(named or "", body, headers, rest=not target)

        def _page(self, code: str, said: str) -> None:
            self._send(200, (PAGE % (code, said)).encode(), {"content-type": "text/html"})

        def _approve(self, form: Body) -> None:
            try:
                service.approve(form.get("user_code", ""), form.get("answer", "approved"))
                self._page(form["user_code"], f"{form['answer']}. You may close this page.")
            except StopIteration:
                self._page("", "There is no such code.")

        def _oidc(self, path: str, body: Body) -> None:
            service.asked.append((path, body))
            try:
                self._json(200, OIDC[path](service, body))
            except Refusal as refusal:
                error = {"error": refusal.message, "error_description": None}
                self._json(refusal.status, error, {"x-amzn-ErrorType": refusal.name or "Exception"})

        def _service(self, operation: str, body: Body, headers: dict[str, str], rest: bool) -> None:
            service.asked.append((operation, body))
            try:
                session = service.check_bearer(headers)
                if operation in service.refusals:
                    raise service.refusals[operation]
                match operation:
                    case "GenerateAssistantResponse":
                        self._stream(service.chat(body, session))
                    case "ListAvailableModels":
                        self._json(200, service.models(body))
                    case "GetUsageLimits":
                        self._json(200, service.usage())
                    case "ListAvailableProfiles":
                        self._json(200, service.profiles(session, headers.get("host", "")))
                    case _:
                        raise Refusal(404, "UnknownOperationException", "There is no such operation.")
            except Refusal as refusal:
                self._refuse(refusal, rest)

        def _refuse(self, refusal: Refusal, rest: bool) -> None:
            said = {"message": refusal.message, "reason": refusal.reason}
            if rest:
                kind = f"{refusal.name}:http://internal.amazon.com/coral/{NAMESPACE}/"
                self._json(refusal.status, said, {"x-amzn-ErrorType": kind})
            else:
                self._json(refusal.status, {"__type": f"{NAMESPACE}#{refusal.name}", **said})

        def _json(self, status: int, body: Body, headers: dict[str, str] | None = None) -> None:
            self._send(status, json.dumps(body).encode(), {"content-type": "application/json", **(headers or {})})

        def _send(self, status: int, data: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in {**headers, "x-amzn-requestid": "r-1", "content-length": str(len(data))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)

        def _stream(self, steps: Iterator[bytes | float]) -> None:
            """In pieces of any size: a read of the client's may begin and end anywhere in a frame."""
            self.send_response(200)
            for name, value in (("content-type", "application/vnd.amazon.eventstream"), ("x-amzn-requestid", "r-1"),
                                ("transfer-encoding", "chunked")):  # fmt: skip
                self.send_header(name, value)
            self.end_headers()
            try:
                for step in steps:
                    if isinstance(step, bytes):
                        self._chunks(step)
                    else:
                        time.sleep(step)
                self.wfile.write(b"0\r\n\r\n")
            except Cut:
                self.close_connection = True

        def _chunks(self, data: bytes) -> None:
            while data:
                size = service.split.randint(1, 200)
                self.wfile.write(b"%x\r\n%b\r\n" % (len(data[:size]), data[:size]))
                data = data[size:]

        def log_message(self, *_: object) -> None:
            pass

    return Handler


# ---- as a program


def main() -> None:
    """Serves until it is interrupted."""
    service = AmazonQ()
    service.is_strict = True
    proxy, trusted = service.behind_proxy(Path(tempfile.mkdtemp(prefix="fake-amazonq-")))
    lines = [
        f"# The fake of Amazon Q and its sign-in. People approve at {service.url}/device",
        "# Start the gateway with:",
        f"export HTTPS_PROXY={proxy.url}",
        f"export UPSTREAM_CA_BUNDLE={trusted}",
    ]
    sys.stdout.write("\n".join([*lines, ""]))
    sys.stdout.flush()
    threading.Event().wait()


if __name__ == "__main__":
    main()
