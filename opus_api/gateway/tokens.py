"""How many tokens a Messages request holds. Pure: a body in, a number out; no account is ever asked.

`count` runs the real BPE with the vocabulary in `vocabulary/`; `estimate` walks the same request with string
lengths instead, because every streamed answer needs a number at once. Both add the same constants: the tokens that a
model family spends on turns, tools, thinking and schemas, which outweigh the vocabulary in most requests.

The published vocabulary is that of Claude 2. Later tokenizers differ from it in two measurable ways, both found by
regression over recorded requests (docs/performance.md): they split quotes, newlines and indentation as `PATTERN`
says, and they need about 1.5 tokens where the old vocabulary continues a word with one.
"""

from __future__ import annotations

import base64
import binascii
import gzip
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, NamedTuple

import orjson
import tiktoken

from opus_api.wire.weights import COMPACT, SAMPLED, WINDOW, text_weight, weighed

Body = Mapping[str, Any]

# --- Constants of the families -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Family:
    """What one generation of models adds to the text itself, in tokens."""

    name: str
    since: tuple[int, int]  # the first version that belongs here
    text: float  # tokens per token of the published vocabulary
    tools_auto: int  # the hidden prompt that explains tools; tool_choice auto, none or absent
    tools_any: int  # the same when some tool must be called
    tools_named: int  # the same when one tool must be called; its name is counted on top
    adaptive: int  # thinking of type adaptive
    image_edge: int  # pixels; longer images are scaled down before they are counted
    image_most: int  # tokens of the largest image


# Newest first. text and tools_*: least absolute error over recorded requests with their true usage. Where recordings
# of a family lack a tool_choice, the number of auto stands in (marked ~).
# image_*: platform.claude.com/docs/en/build-with-claude/vision.
FAMILIES = (
    # A new tokenizer: the documentation says 1.0 to 1.35 times the tokens of its predecessor.
    Family("claude 4.7 and later", (4, 7), 1.28, 252, 252, 252, 0, 2576, 4784),  # any, named ~
    Family("claude 4.5 and 4.6", (4, 5), 1.0, 484, 566, 581, 17, 1568, 1600),
    Family("claude 4.0 and 4.1", (4, 0), 1.0, 305, 297, 266, 17, 1568, 1600),
    Family("claude 3 and earlier", (0, 0), 1.0, 241, 241, 241, 17, 1568, 1600),  # any, named ~
)
# Other vendors' models and names we do not know: the family that most traffic uses.
UNKNOWN = FAMILIES[1]

# Common to all families; fitted like the above and rounded.
BASE = 4  # what surrounds a conversation; one user message costs 7 with its own turn
TURN = 3  # each message; an assistant message at the end (prefill) opens no further turn
THINKING = 29  # thinking of type enabled
TOOL = 14  # what surrounds one tool's definition
TOOL_CALL = 29.5  # a tool_use block, and again the tool_result that answers it
SCHEMA = 97  # structured output: its hidden prompt ...
SCHEMA_TEXT = 1.49  # ... which quotes the schema in a longer form than the one that was sent
TASK_BUDGET = 36  # output_config.task_budget

# Tools that the vendor runs or defines: a type and a name stand for a definition we never see. The first three are
# from the documentation's pages of each tool; the others have no published figure: 2,000 is what a first request
# with web search showed above its text and tool prompt (2,479 in all).
VENDOR_TOOLS = {"bash": 245, "text_editor": 700, "computer": 735, "web_search": 2000}
VENDOR_TOOL = 1500

IMAGE_PIXELS = 750  # per token (documentation, "vision")
IMAGE_UNREAD = 1600  # an image behind a URL, a file id or an unknown format: what a large screenshot costs
PDF_PAGE = 3000  # documentation: 1,500 to 3,000 tokens of text a page, each page is also an image
PDF_PAGE_BYTES = 50_000  # when the pages cannot be counted
PDF_MOST_PAGES = 600  # the API's own limit
OPAQUE_CHARS = 6  # encrypted content: base64 of text, so 4.3 characters a token times 4/3


def family(model: str) -> Family:
    """The constants that apply to a model name such as `claude-sonnet-4.5` or `us.anthropic.claude-3-haiku-2024…`."""
    found = re.search(r"claude.*?(?<!\d)(\d{1,2})(?:[-._](\d{1,2}))?(?!\d)", model.lower()[:100])
    if not found:
        return UNKNOWN
    version = (int(found[1]), int(found[2] or 0))
    return next(one for one in FAMILIES if version >= one.since)


# --- Measuring text ----------------------------------------------------------------------------------------------


class Ruler(NamedTuple):
    """How long things are, in tokens of the published vocabulary."""

    text: Callable[[str], float]
    data: Callable[[object], float]
    pages: Callable[[str], int]


PATTERN = (
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+|\p{N}{1,3}"
    r"| ?[\"'`*(\[{<][^\s\p{L}\p{N}]*|[^\s\p{L}\p{N}]+"
    r"|\n+|[^\S\n]+(?= [^\s\p{N}])|[^\S\n]+"
)
# The same pieces in the words of Python's re, to know how many tokens continue a piece.
PIECE = re.compile(
    r"'s|'t|'re|'ve|'m|'ll|'d| ?[^\W\d_]+|\d{1,3}"
    r"| ?[\"'`*(\[{<](?:[^\s\w]|_)*|(?:[^\s\w]|_)+"
    r"|\n+|[^\S\n]+(?= [^\s\d])|[^\S\n]+"
)
CONTINUED = 0.5  # what each continuing token of a word costs beyond its one
# Scripts that the vocabulary spells out: continuing is their normal state, so no surcharge (Chinese: 0.9 a character).
SPELLED = re.compile("[\u0370-\u1fff\u2e80-\U0010ffff]+")
SLICE = 50_000  # characters encoded at a time


@cache
def _encoding() -> tiktoken.Encoding:
    packed = resources.files(__package__).joinpath("vocabulary/claude.json.gz").read_bytes()
    # "! 5 IQ== Ig== …": a mark, the rank of the first token, then every token in base64.
    _, first, *tokens = json.loads(gzip.decompress(packed))["bpe_ranks"].split(" ")
    ranks = {base64.b64decode(token): rank for rank, token in enumerate(tokens, int(first))}
    return tiktoken.Encoding("claude", pat_str=PATTERN, mergeable_ranks=ranks, special_tokens={})


def _encoded(text: str) -> int:
    encode = _encoding().encode_ordinary
    return sum(len(encode(text[at : at + SLICE])) for at in range(0, len(text), SLICE))


def _text_tokens(text: str) -> float:
    if not text.isascii():
        spelled = _encoded("".join(SPELLED.findall(text)))
        text = SPELLED.sub("", text)
    else:
        spelled = 0
    tokens = _encoded(text)
    continued = tokens - sum(1 for _ in PIECE.finditer(text))
    return spelled + tokens + CONTINUED * max(continued, 0)


def _data_tokens(value: object) -> float:
    # JSON reaches the model with a blank after every colon and comma, and unescaped.
    return _text_tokens(_json(value))


def _json(value: object) -> str:
    try:
        return json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError):
        return " ".join(_leaves(value))  # not JSON, or nested too deeply to be written


def _leaves(value: object) -> Iterator[str]:
    left = [value]
    while left:
        one = left.pop()
        if isinstance(one, Mapping):
            left += [*one.values(), *one]
        elif isinstance(one, list | tuple):
            left += one
        else:
            yield str(one)


def _marked_pages(data: str) -> int:
    return len(re.findall(rb"/Type\s*/Page\b", _decoded(data))) or _guessed_pages(data)


def _guessed_pages(data: str) -> int:
    return 1 + len(data) * 3 // 4 // PDF_PAGE_BYTES


EXACT = Ruler(_text_tokens, _data_tokens, _marked_pages)


def _data_weight(value: object) -> float:
    try:
        dumped = orjson.dumps(value)
    except TypeError:  # lone surrogates, or nested beyond orjson's limit
        return sum(map(text_weight, _leaves(value)))
    if len(dumped) <= SAMPLED:
        return weighed(dumped, COMPACT)
    sample = b"".join(dumped[at : at + WINDOW] for at in range(0, len(dumped), len(dumped) // 8))
    return weighed(sample, COMPACT) * len(dumped) / len(sample)


ROUGH = Ruler(text_weight, _data_weight, _guessed_pages)


# --- Walking a request -------------------------------------------------------------------------------------------


def count(body: Body) -> int:
    """Input tokens of a Messages request body, by BPE: about 15 ms for 100 KB. Thread-safe."""
    return _total(body, EXACT)


def estimate(body: Body) -> int:
    """Input tokens of a Messages request body, from lengths alone: microseconds, for `message_start`."""
    return _total(body, ROUGH)


def estimate_text(text: str, model: str) -> float:
    """The same of a piece of an answer."""
    return ROUGH.text(text) * family(model).text


def _total(body: Body, ruler: Ruler) -> int:
    kind = family(str(body.get("model", "")))
    messages = [one for one in _listed(body.get("messages")) if isinstance(one, Mapping)]
    total = (
        BASE
        + _messages(messages, ruler, kind)
        + _content(body.get("system"), ruler, kind)
        + _tools(body, ruler, kind)
        + _thinking(body.get("thinking"), kind)
        + _output(body, ruler, kind)
    )
    return max(1, round(total))


def _listed(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _messages(messages: list[Mapping[str, Any]], ruler: Ruler, kind: Family) -> float:
    prefilled = bool(messages) and messages[-1].get("role") == "assistant"
    turns = len(messages) - prefilled
    last = _last_question(messages)
    return TURN * turns + sum(
        _content(message.get("content"), ruler, kind, thought=at > last) for at, message in enumerate(messages)
    )


def _last_question(messages: list[Mapping[str, Any]]) -> int:
    """Where the current turn begins: thinking before it is removed by the API and costs nothing."""
    for at in range(len(messages) - 1, -1, -1):
        if messages[at].get("role") == "user" and not _answers_tools(messages[at].get("content")):
            return at
    return -1


def _answers_tools(content: object) -> bool:
    return any(isinstance(block, Mapping) and block.get("type") == "tool_result" for block in _listed(content))


def _content(content: object, ruler: Ruler, kind: Family, thought: bool = False) -> float:
    if isinstance(content, str):
        return kind.text * ruler.text(content)
    return sum(_block(block, ruler, kind, thought) for block in _flat(content))


def _flat(content: object) -> Iterator[Mapping[str, Any]]:
    """Every block of a content, those inside tool results, documents and search results too."""
    left = list(reversed(_listed(content)))
    while left:
        block = left.pop()
        if isinstance(block, str):
            yield {"type": "text", "text": block}
        elif isinstance(block, Mapping):
            yield block
            left += reversed(_inside(block))


def _inside(block: Mapping[str, Any]) -> list[Any]:
    source = block.get("source")
    content = source.get("content") if isinstance(source, Mapping) else block.get("content")
    return [content] if isinstance(content, str | Mapping) else _listed(content)


def _block(block: Mapping[str, Any], ruler: Ruler, kind: Family, thought: bool) -> float:
    match block.get("type"):
        case "text":
            return kind.text * ruler.text(_string(block, "text"))
        case "thinking":
            return kind.text * ruler.text(_string(block, "thinking")) if thought else 0
        case "redacted_thinking":
            return len(_string(block, "data")) / OPAQUE_CHARS if thought else 0
        case "image":
            return _image(block.get("source"), kind)
        case "document":
            return _document(block, ruler, kind)
        case "tool_use" | "server_tool_use" | "mcp_tool_use":
            named = ruler.text(_string(block, "name")) + ruler.data(block.get("input", {}))
            return TOOL_CALL + kind.text * named
        case str(other) if other.endswith("tool_result"):
            return TOOL_CALL  # its content follows as blocks of its own
        case _:
            return _other(block, ruler, kind)


def _string(block: Mapping[str, Any], key: str) -> str:
    value = block.get(key)
    return value if isinstance(value, str) else ""


# Keys of a block that the model does not read, or that are counted elsewhere.
UNREAD = {"type", "cache_control", "citations", "signature", "encrypted_content", "encrypted_index", "content"}


def _other(block: Mapping[str, Any], ruler: Ruler, kind: Family) -> float:
    shown = {key: value for key, value in block.items() if key not in UNREAD}
    opaque = len(_string(block, "encrypted_content")) / OPAQUE_CHARS
    return opaque + (kind.text * ruler.data(shown) if shown else 0)


def _document(block: Mapping[str, Any], ruler: Ruler, kind: Family) -> float:
    source = block.get("source")
    if not isinstance(source, Mapping):
        return 0
    about = ruler.text(_string(block, "title")) + ruler.text(_string(block, "context"))
    match source.get("type"):
        case "text":
            return kind.text * (about + ruler.text(_string(source, "data")))
        case "content":
            return kind.text * about  # its content follows as blocks of its own
        case "base64":
            return kind.text * about + PDF_PAGE * min(ruler.pages(_string(source, "data")), PDF_MOST_PAGES)
        case _:
            return kind.text * about + PDF_PAGE  # behind a URL or a file id: one page, for want of a better number


def _thinking(thinking: object, kind: Family) -> int:
    type_ = thinking.get("type") if isinstance(thinking, Mapping) else None
    return THINKING if type_ == "enabled" else kind.adaptive if type_ == "adaptive" else 0


def _output(body: Body, ruler: Ruler, kind: Family) -> float:
    config = body.get("output_config")
    config = config if isinstance(config, Mapping) else {}
    wanted = config.get("format") or body.get("output_format")
    budget = TASK_BUDGET if config.get("task_budget") else 0
    if not isinstance(wanted, Mapping) or not wanted.get("schema"):
        return budget
    return budget + SCHEMA + kind.text * SCHEMA_TEXT * ruler.data(wanted["schema"])


# --- Tools -------------------------------------------------------------------------------------------------------


def _tools(body: Body, ruler: Ruler, kind: Family) -> float:
    tools = [one for one in _listed(body.get("tools")) if isinstance(one, Mapping)]
    if not tools:
        return 0
    return _tool_prompt(body.get("tool_choice"), ruler, kind) + sum(_tool(one, ruler, kind) for one in tools)


def _tool_prompt(choice: object, ruler: Ruler, kind: Family) -> float:
    choice = choice if isinstance(choice, Mapping) else {}
    match choice.get("type"):
        case "any":
            return kind.tools_any
        case "tool":
            return kind.tools_named + kind.text * ruler.text(_string(choice, "name"))
        case _:
            return kind.tools_auto


def _tool(tool: Mapping[str, Any], ruler: Ruler, kind: Family) -> float:
    if tool.get("defer_loading"):
        return 0  # the model sees it only after a tool search has found it
    if tool.get("type") not in (None, "custom") and "input_schema" not in tool:
        return _vendor_tool(str(tool["type"]))
    # strict, cache_control and the like are not shown to the model: recorded requests cost the same without them.
    shown = {key: tool[key] for key in ("name", "description", "input_schema") if key in tool}
    return TOOL + kind.text * ruler.data(shown)


def _vendor_tool(type_: str) -> int:
    return next((tokens for name, tokens in VENDOR_TOOLS.items() if type_.startswith(name)), VENDOR_TOOL)


# --- Images ------------------------------------------------------------------------------------------------------


def _image(source: object, kind: Family) -> float:
    size = _pixels(_string(source, "data")) if isinstance(source, Mapping) else None
    if not size:
        return IMAGE_UNREAD
    width, height = size
    scale = min(1.0, kind.image_edge / max(width, height))
    return min(kind.image_most, max(1.0, width * height * scale * scale / IMAGE_PIXELS))


def _decoded(data: str) -> bytes:
    try:
        return base64.b64decode(data[: len(data) // 4 * 4])
    except (binascii.Error, ValueError):
        return b""


def _pixels(data: str) -> tuple[int, int] | None:
    """Width and height from the head of a base64 PNG, GIF, WebP or JPEG; None when it is none of them."""
    head = _decoded(data[:64])
    size: tuple[int, int] | None = None
    if head.startswith(b"\x89PNG"):
        size = int.from_bytes(head[16:20]), int.from_bytes(head[20:24])
    elif head.startswith(b"GIF8"):
        size = int.from_bytes(head[6:8], "little"), int.from_bytes(head[8:10], "little")
    elif head[8:12] == b"WEBP":
        size = _webp_pixels(head)
    elif head.startswith(b"\xff\xd8"):
        size = _jpeg_pixels(_decoded(data[:JPEG_HEAD]))
    return size if size and all(size) else None


JPEG_HEAD = 174_764  # base64 characters: 128 KiB, room for a thumbnail and a colour profile before the frame header


def _webp_pixels(head: bytes) -> tuple[int, int] | None:
    # developers.google.com/speed/webp/docs/riff_container: three kinds, three places for the size.
    match head[12:16]:
        case b"VP8X":
            return 1 + int.from_bytes(head[24:27], "little"), 1 + int.from_bytes(head[27:30], "little")
        case b"VP8L":
            bits = int.from_bytes(head[21:25], "little")
            return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
        case b"VP8 ":
            return int.from_bytes(head[26:28], "little") & 0x3FFF, int.from_bytes(head[28:30], "little") & 0x3FFF
        case _:
            return None


def _jpeg_pixels(data: bytes) -> tuple[int, int] | None:
    # Segments are ff, marker, length. The frame header (c0 to cf, bar c4, c8, cc) says height and width.
    at = 2
    while at + 9 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            return int.from_bytes(data[at + 7 : at + 9]), int.from_bytes(data[at + 5 : at + 7])
        at += 2 + int.from_bytes(data[at + 2 : at + 4])
    return None
