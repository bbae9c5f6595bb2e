"""Set-up of clients, word for word, for one address, key and model. Pure; values are quoted as each language does."""

import json
import re
import shlex
from collections.abc import Iterable

PLACEHOLDER = "YOUR_API_KEY"
PREFERRED = ("claude-sonnet-4.5", "claude-sonnet-5", "claude-sonnet-4-5")


def usual_model(names: Iterable[str]) -> str:
    """What a newcomer asks for first: a Sonnet, else any Claude, else whatever there is."""
    known = list(names)
    for wanted in PREFERRED:
        if wanted in known:
            return wanted
    fitting = [name for part in ("sonnet", "claude") for name in known if part in name]
    return (fitting or known or [PREFERRED[0]])[0]


def alias_for_cursor(names: Iterable[str]) -> str:
    """A name without "claude", which Cursor would send to Anthropic itself; "" when there is none."""
    return next((name for name in names if "claude" not in name and "/" not in name), "")


def snippets(address: str, key: str, model: str) -> dict[str, str]:
    """Name -> text. ``address``: scheme, host and port, without a slash at its end."""
    values = {"address": address, "key": key, "model": model, "base": f"{address}/v1"}
    shell = {name: shlex.quote(value) for name, value in values.items()}
    quoted = {name: json.dumps(value, ensure_ascii=False) for name, value in values.items()}
    found = {name: _filled(text, shell) for name, text in SHELL.items()}
    found |= {name: _filled(text, quoted) for name, text in QUOTED.items()}
    return found | {"claude_settings": _claude_settings(address, key, model), **_curl(address, key, model)}


def _filled(text: str, values: dict[str, str]) -> str:
    return re.sub(r"<(\w+)>", lambda found: values[found[1]], text.strip("\n"))


SHELL = {
    "claude_env": """
export ANTHROPIC_BASE_URL=<address>
export ANTHROPIC_AUTH_TOKEN=<key>
export ANTHROPIC_MODEL=<model>
claude
"""
}

QUOTED = {
    "anthropic_python": """
import anthropic

client = anthropic.Anthropic(base_url=<address>, api_key=<key>)
with client.messages.stream(
    model=<model>,
    max_tokens=1024,
    messages=[{"role": "user", "content": "Hello"}],
) as stream:
    for text in stream.text_stream:
        print(text, end="", flush=True)
print()
""",
    "anthropic_node": """
import Anthropic from "@anthropic-ai/sdk";

const client = new Anthropic({ baseURL: <address>, apiKey: <key> });
const stream = client.messages.stream({
  model: <model>,
  max_tokens: 1024,
  messages: [{ role: "user", content: "Hello" }],
});
stream.on("text", (text) => process.stdout.write(text));
await stream.finalMessage();
console.log();
""",
    "openai_python": """
import openai

client = openai.OpenAI(base_url=<base>, api_key=<key>)
stream = client.chat.completions.create(
    model=<model>,
    max_tokens=1024,
    messages=[{"role": "user", "content": "Hello"}],
    stream=True,
)
for chunk in stream:
    if chunk.choices:
        print(chunk.choices[0].delta.content or "", end="", flush=True)
print()
""",
    "openai_node": """
import OpenAI from "openai";

const client = new OpenAI({ baseURL: <base>, apiKey: <key> });
const stream = await client.chat.completions.create({
  model: <model>,
  max_tokens: 1024,
  messages: [{ role: "user", content: "Hello" }],
  stream: true,
});
for await (const chunk of stream) process.stdout.write(chunk.choices[0]?.delta?.content ?? "");
console.log();
""",
}


def _claude_settings(address: str, key: str, model: str) -> str:
    env = {"ANTHROPIC_BASE_URL": address, "ANTHROPIC_AUTH_TOKEN": key, "ANTHROPIC_MODEL": model}
    return json.dumps({"env": env}, indent=2, ensure_ascii=False)


def _curl(address: str, key: str, model: str) -> dict[str, str]:
    body = json.dumps(
        {"model": model, "max_tokens": 1024, "stream": True, "messages": [{"role": "user", "content": "Hello"}]},
        ensure_ascii=False,
    )
    sent = f"  -H 'content-type: application/json' \\\n  -d {shlex.quote(body)}"
    messages = shlex.quote(f"{address}/v1/messages")
    chat = shlex.quote(f"{address}/v1/chat/completions")
    anthropic, bearer = shlex.quote(f"x-api-key: {key}"), shlex.quote(f"Authorization: Bearer {key}")
    return {
        "curl": f"curl -N {messages} \\\n  -H {anthropic} \\\n{sent}",
        "curl_chat": f"curl -N {chat} \\\n  -H {bearer} \\\n{sent}",
        "curl_models": f"curl {shlex.quote(f'{address}/v1/models')} -H {anthropic}",
    }
