"""The clients: a process of its own, on gevent, that does what a plan says and writes down what it saw.

    python -m tests.chaos.swarm PLAN LEDGER

Prints "started" when its clock begins.
The plan is JSON: ``port``, ``key``, ``secrets`` (none of which may be seen), ``at_once`` (how many run at most), and
``jobs`` as in ``plan.Job``. A ledger line is a ``ledgers.Request``.
"""

from gevent import monkey

monkey.patch_all()

import http.client  # noqa: E402 - patching comes before every other import
import importlib  # noqa: E402
import json  # noqa: E402
import socket  # noqa: E402
import struct  # noqa: E402
import sys  # noqa: E402
import time  # noqa: E402
from collections.abc import Iterable  # noqa: E402
from contextlib import suppress  # noqa: E402
from dataclasses import asdict  # noqa: E402
from functools import cached_property  # noqa: E402
from typing import Any  # noqa: E402

import gevent  # noqa: E402
import gevent.pool  # noqa: E402

from tests.chaos.ledgers import Request  # noqa: E402
from tests.chaos.plan import Job  # noqa: E402
from tests.live import Answer  # noqa: E402

PATIENCE = 30.0  # seconds of silence after which a client gives up: nothing may take that long
PATH = {"anthropic": "/v1/messages", "openai": "/v1/chat/completions"}


class Left(Exception):
    """The client has had enough, as planned."""


class Swarm:
    def __init__(self, plan: dict[str, Any]):
        self.port: int = plan["port"]
        self.key: str = plan["key"]
        self.secrets = [secret.encode() for secret in plan["secrets"]]

    @cached_property
    def anthropic(self) -> Any:
        from anthropic import Anthropic  # loading the libraries takes seconds, and not every plan needs them

        return Anthropic(base_url=f"http://127.0.0.1:{self.port}", api_key=self.key, max_retries=0, timeout=PATIENCE)

    @cached_property
    def openai(self) -> Any:
        from openai import OpenAI

        return OpenAI(base_url=f"http://127.0.0.1:{self.port}/v1", api_key=self.key, max_retries=0, timeout=PATIENCE)

    def ask(self, job: Job) -> Request:
        began = time.monotonic()
        seen = self.raw(job) if job.via == "raw" else self.by_sdk(job)
        told = (job.tag, job.model, job.dialect, job.via, job.stream)
        return Request(*told, began=began, ended=time.monotonic(), **seen)

    # ---- by hand

    def raw(self, job: Job) -> dict[str, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        headers = {"content-type": "application/json", "x-api-key": self.key, "anthropic-version": "2023-06-01"}
        try:
            connection.connect()
        except OSError:
            return {"end": "refused"}
        sock = connection.sock
        seen: dict[str, Any] = {"end": "dropped"}
        try:
            connection.request("POST", PATH[job.dialect], json.dumps(body_of(job)), headers)
            self._read(job, sock, connection, seen)
        except Left:
            seen["end"] = "left"
            if job.resets:
                with suppress(OSError):  # a stopping gateway's "connection: close" has closed it already
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        except TimeoutError:
            seen["end"] = "hung"
        except (OSError, http.client.HTTPException):
            seen["end"] = "cut" if "status" in seen else "dropped"
        finally:
            connection.close()
        return seen

    def _read(self, job: Job, sock: socket.socket, connection: http.client.HTTPConnection, seen: Any) -> None:
        leaves_at = None if job.leaves is None else time.monotonic() + job.leaves
        response = _in_time(sock, leaves_at, connection.getresponse)
        headers = {name.lower(): value for name, value in response.getheaders()}
        seen |= {"status": response.status, "request_id": headers.get("request-id", "")}
        data = b""
        try:
            while part := _in_time(sock, leaves_at, lambda: response.read1(16 if job.slow else 65_536)):
                data += part
                gevent.sleep(0.02 if job.slow else 0)
            if response.length:
                raise http.client.IncompleteRead(data)
        finally:
            seen["leaked"] = self._leaks(data + repr(headers).encode())
            with suppress(OSError):
                response.close()
        # A line may end in CR, LF or both.
        seen |= judged(Answer(response.status, headers, data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")))

    def _leaks(self, data: bytes) -> bool:
        return any(secret in data for secret in self.secrets)

    # ---- by the vendors' libraries

    def by_sdk(self, job: Job) -> dict[str, Any]:
        seen: dict[str, Any] = {"end": "dropped"}
        library: Any = importlib.import_module(job.dialect)
        try:
            (self._anthropic if job.dialect == "anthropic" else self._openai)(job, seen)
        except library.APITimeoutError:
            seen["end"] = "hung"
        except library.APIConnectionError as error:
            never_came = "status" not in seen
            refused = isinstance(error.__cause__, ConnectionRefusedError) or "refused" in str(error.__cause__)
            seen["end"] = ("refused" if refused else "dropped") if never_came else "cut"
        except library.APIError as error:
            response = getattr(error, "response", None)
            if "status" not in seen and response is not None:
                seen |= {"status": response.status_code, "request_id": response.headers.get("request-id", "")}
            seen |= {
                "end": "error",
                "error_type": str(type(error).__name__),
                "leaked": self._leaks(str(error).encode()),
            }
        except Exception as error:  # noqa: BLE001 - httpx's errors of a body come through unnamed
            seen |= {"end": "cut", "error_type": type(error).__name__}
        return seen

    def _anthropic(self, job: Job, seen: dict[str, Any]) -> None:
        asked = {name: value for name, value in body_of(job).items() if name != "stream"}
        raw = self.anthropic.messages.with_raw_response.create(**asked, stream=job.stream)
        seen |= {"status": raw.status_code, "request_id": raw.headers.get("request-id", "")}
        answer = raw.parse()
        events = list(answer) if job.stream else []
        if not job.stream:
            seen |= {"text": "".join(block.text for block in answer.content if block.type == "text")}
            seen |= {"output_tokens": answer.usage.output_tokens, "end": "complete"}
            return
        texts = (event.delta for event in events if event.type == "content_block_delta")
        seen["text"] = "".join(getattr(delta, "text", "") for delta in texts)
        counted = [event.usage.output_tokens for event in events if event.type == "message_delta"]
        ended = bool(events) and events[-1].type == "message_stop"
        seen |= {"output_tokens": counted[-1] if counted else None, "end": "complete" if ended else "unended"}

    def _openai(self, job: Job, seen: dict[str, Any]) -> None:
        asked = {name: value for name, value in body_of(job).items() if name != "stream"}
        raw = self.openai.chat.completions.with_raw_response.create(**asked, stream=job.stream)
        seen |= {"status": raw.status_code, "request_id": raw.headers.get("request-id", "")}
        answer = raw.parse()
        if not job.stream:
            seen |= {"text": answer.choices[0].message.content or "", "end": "complete"}
            seen |= {"output_tokens": answer.usage.completion_tokens}
            return
        chunks = list(answer)
        seen["text"] = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
        counted = [chunk.usage.completion_tokens for chunk in chunks if chunk.usage]
        # The library does not tell [DONE] from an end without it; the reason of the finish comes just before.
        finished = any(chunk.choices and chunk.choices[0].finish_reason for chunk in chunks)
        seen |= {"output_tokens": counted[-1] if counted else None, "end": "complete" if finished else "unended"}


def _in_time(sock: socket.socket, leaves_at: float | None, wait: Any) -> Any:
    """What ``wait`` returns. Raises Left when the client's time is over before, TimeoutError after PATIENCE."""
    if leaves_at is None:
        return wait()
    left = leaves_at - time.monotonic()
    if left <= 0:
        raise Left
    sock.settimeout(left)
    try:
        return wait()
    except TimeoutError:
        raise Left from None


def body_of(job: Job) -> dict[str, Any]:
    body = {"model": job.model, "max_tokens": 64, "messages": [{"role": "user", "content": job.prompt}]}
    if job.stream and job.dialect == "openai":
        body["stream_options"] = {"include_usage": True}
    return {**body, "stream": job.stream}


def judged(answer: Answer) -> dict[str, Any]:
    """How a complete HTTP answer ended in its protocol, and what it said."""
    if answer.status != 200:
        try:
            return {"end": "error", "error_type": answer.error[1]}
        except (ValueError, KeyError, TypeError):
            return {"end": "unended", "error_type": "not an error of the dialect"}
    try:
        found = {"text": answer.text, "output_tokens": _output_tokens(answer)}
        return {**found, **_ending(answer)}
    except (ValueError, KeyError, TypeError, IndexError) as error:
        return {"end": "unended", "error_type": f"unreadable: {error!r}"[:200]}


def _ending(answer: Answer) -> dict[str, Any]:
    if not answer.headers["content-type"].startswith("text/event-stream"):
        return {"end": "complete"}
    events = answer.events
    last = events[-1] if events else {}
    if last.get("done") or last.get("type") == "message_stop":
        return {"end": "complete"}
    if "error" in last:
        return {"end": "error", "error_type": last["error"]["type"]}
    return {"end": "unended"}


def _output_tokens(answer: Answer) -> int | None:
    """The last count it was told."""
    told = [answer.json] if not answer.headers["content-type"].startswith("text/event-stream") else answer.events
    usages: Iterable[dict[str, Any]] = (event["usage"] for event in told if event.get("usage"))
    counts = [usage.get("output_tokens", usage.get("completion_tokens")) for usage in usages]
    return counts[-1] if counts else None


def run(plan: dict[str, Any], ledger: Any) -> None:
    swarm = Swarm(plan)

    def ask(job: Job) -> None:
        ledger.write(json.dumps(asdict(swarm.ask(job))) + "\n")
        ledger.flush()

    if any(entry["via"] == "sdk" for entry in plan["jobs"]):
        _ = swarm.anthropic, swarm.openai  # loaded before the clock starts
    pool = gevent.pool.Pool(plan["at_once"])
    sys.stdout.write("started\n")
    sys.stdout.flush()
    start = time.monotonic()
    for entry in plan["jobs"]:
        job = Job(**entry)
        gevent.sleep(max(0.0, start + job.at - time.monotonic()))
        pool.spawn(ask, job)
    pool.join()


if __name__ == "__main__":
    with open(sys.argv[1], encoding="utf-8") as plan, open(sys.argv[2], "w", encoding="utf-8") as ledger:
        run(json.load(plan), ledger)
