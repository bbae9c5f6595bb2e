"""Counting and estimating tokens. The requests here are invented; the recorded ones are measured by bench/tokens.py."""

import base64
import copy
import json
import struct
import threading
import time

import pytest

from opus_api.gateway import tokens
from opus_api.gateway.tokens import FAMILIES, UNKNOWN, count, estimate, family

BAKERY = "Our bakery on Mill Lane opens at six, and the rye bread is usually gone before the church bell rings."
MEETING = "请把昨天会议的内容整理成三点要点，并说明每一点由谁负责跟进，什么时候完成。"
PYTHON = """def overdue(loans, today):
    \"\"\"Books that should have been returned by now.\"\"\"
    for loan in loans:
        if loan.due < today and not loan.returned:
            yield loan.book, (today - loan.due).days
"""
FERRY = {
    "name": "ferry_times",
    "description": "List the departures of the island ferry on a given day.",
    "input_schema": {
        "type": "object",
        "properties": {
            "day": {"type": "string", "description": "The day as YYYY-MM-DD"},
            "harbour": {"type": "string", "enum": ["north", "south"]},
        },
        "required": ["day"],
    },
}
TIDES = {"name": "tides", "description": "潮汐时间表。", "input_schema": {"type": "object", "properties": {}}}
CALL = {"type": "tool_use", "id": "toolu_1", "name": "ferry_times", "input": {"day": "2031-05-04"}}
RESULT = {"type": "tool_result", "tool_use_id": "toolu_1", "content": "07:40, 11:05, 16:30"}
TOOL_TURNS = [{"role": "assistant", "content": [CALL]}, {"role": "user", "content": [RESULT]}]


def body(*contents, model="claude-sonnet-4-5", **more):
    roles = ("user", "assistant")
    messages = [{"role": roles[at % 2], "content": content} for at, content in enumerate(contents)]
    return {"model": model, "max_tokens": 100, "messages": messages, **more}


def with_tools(*tools, **more):
    return body(BAKERY, tools=list(tools), **more)


def after_tool_turns():
    made = with_tools(FERRY)
    return {**made, "messages": made["messages"] + TOOL_TURNS}


TABLE = {
    "one word": (body("Bonjour"), 10),
    "english": (body(BAKERY), 32),
    "chinese": (body(MEETING), 47),
    "code": (body(PYTHON), 67),
    "three turns": (body(BAKERY, "Noted.", "And on Sundays?"), 47),
    "prefill": (body(BAKERY, "It opens"), 34),
    "system": (body(BAKERY, system="Answer in one line."), 37),
    "system blocks": (body(BAKERY, system=[{"type": "text", "text": "Answer in one line."}]), 37),
    "one tool": (with_tools(FERRY), 622),
    "two tools": (with_tools(FERRY, TIDES), 670),
    "any tool": (with_tools(FERRY, tool_choice={"type": "any"}), 704),
    "named tool": (with_tools(FERRY, tool_choice={"type": "tool", "name": "ferry_times"}), 723),
    "tool turns": (after_tool_turns(), 715),
    "thinking": (body(BAKERY, thinking={"type": "enabled", "budget_tokens": 2048}), 61),
    "schema": (
        body(BAKERY, output_config={"format": {"type": "json_schema", "schema": FERRY["input_schema"]}}),
        215,
    ),
    "newest model": (body(BAKERY, model="claude-opus-4-8"), 39),
    "older model with a tool": (with_tools(FERRY, model="claude-3-5-haiku-20241022"), 378),
}


@pytest.mark.parametrize("request_body, expected", TABLE.values(), ids=TABLE)
def test_a_request_costs_what_the_table_says(request_body, expected):
    assert count(request_body) == expected


@pytest.mark.parametrize("request_body", [request for request, _ in TABLE.values()], ids=TABLE)
def test_the_estimate_stays_within_a_quarter_of_the_count(request_body):
    assert estimate(request_body) == pytest.approx(count(request_body), rel=0.25)


@pytest.mark.parametrize(
    "model, name",
    [
        ("claude-sonnet-4-5", "claude 4.5 and 4.6"),
        ("claude-sonnet-4.5", "claude 4.5 and 4.6"),
        ("claude-haiku-4-5-20251001", "claude 4.5 and 4.6"),
        ("CLAUDE_SONNET_4_5_20250929_V1_0", "claude 4.5 and 4.6"),
        ("claude-opus-4-20250514", "claude 4.0 and 4.1"),
        ("anthropic/claude-opus-4.1", "claude 4.0 and 4.1"),
        ("us.anthropic.claude-3-5-sonnet-20240620-v1:0", "claude 3 and earlier"),
        ("claude-3-opus-latest", "claude 3 and earlier"),
        ("claude-opus-4-8", "claude 4.7 and later"),
        ("claude-opus-5", "claude 4.7 and later"),
        ("openai/gpt-5", UNKNOWN.name),
        ("claude-sonnet-latest", UNKNOWN.name),
        ("practice", UNKNOWN.name),
        ("", UNKNOWN.name),
    ],
)
def test_a_model_name_tells_its_family(model, name):
    assert family(model).name == name


@pytest.mark.parametrize("measure", [count, estimate])
@pytest.mark.parametrize("added", [BAKERY, MEETING, "", [CALL], [RESULT], [{"type": "text", "text": PYTHON}]])
@pytest.mark.parametrize("role", ["user", "assistant"])
def test_a_further_message_never_lowers_the_count(measure, added, role):
    before = after_tool_turns()
    after = {**before, "messages": [*before["messages"], {"role": role, "content": added}]}
    assert measure(after) >= measure(before)


@pytest.mark.parametrize("measure", [count, estimate])
def test_tools_cost_more_than_their_text(measure):
    as_text = body(BAKERY + json.dumps(FERRY))
    assert measure(with_tools(FERRY)) > measure(as_text) + 200


@pytest.mark.parametrize("ignored", [{"strict": True}, {"cache_control": {"type": "ephemeral"}}, {"type": "custom"}])
def test_keys_that_the_model_does_not_read_cost_nothing(ignored):
    assert count(with_tools({**FERRY, **ignored})) == count(with_tools(FERRY))


def test_a_deferred_tool_costs_nothing_until_it_is_found():
    assert count(with_tools(FERRY, {**TIDES, "defer_loading": True})) == count(with_tools(FERRY))


@pytest.mark.parametrize(
    "type_, at_least", [("web_search_20250305", 2000), ("bash_20250124", 245), ("something_20300101", 1000)]
)
def test_a_vendor_tool_costs_its_hidden_definition(type_, at_least):
    assert count(with_tools({"type": type_, "name": "x"})) >= count(with_tools()) + at_least


@pytest.mark.parametrize("measure", [count, estimate])
def test_chinese_costs_about_a_token_a_character(measure):
    short, long = body(MEETING), body(MEETING * 40)
    assert 0.8 < (measure(long) - measure(short)) / (39 * len(MEETING)) < 1.15


def test_blocks_and_a_string_with_the_same_text_cost_the_same():
    assert count(body([{"type": "text", "text": BAKERY}])) == count(body(BAKERY))


# ---- images and documents


def png(width, height):
    head = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + struct.pack(">II", width, height)
    return "image/png", head + bytes(40)


def gif(width, height):
    return "image/gif", b"GIF89a" + struct.pack("<HH", width, height) + bytes(40)


def jpeg(width, height):
    profile = b"\xff\xe2" + struct.pack(">H", 3002) + bytes(3000)
    frame = b"\xff\xc0" + struct.pack(">HBHH", 17, 8, height, width) + bytes(12)
    return "image/jpeg", b"\xff\xd8" + profile + frame


def webp_extended(width, height):
    size = struct.pack("<I", width - 1)[:3] + struct.pack("<I", height - 1)[:3]
    return "image/webp", b"RIFF\x00\x00\x00\x00WEBPVP8X" + bytes(8) + size + bytes(20)


def webp_lossless(width, height):
    bits = struct.pack("<I", (width - 1) | (height - 1) << 14)
    return "image/webp", b"RIFF\x00\x00\x00\x00WEBPVP8L" + bytes(4) + b"\x2f" + bits + bytes(20)


def webp_lossy(width, height):
    return "image/webp", b"RIFF\x00\x00\x00\x00WEBPVP8 " + bytes(10) + struct.pack("<HH", width, height) + bytes(20)


def encoded(media_type, data):
    return {"type": "base64", "media_type": media_type, "data": base64.b64encode(data).decode()}


def cost(block, **more):
    return count(body([block], **more)) - count(body([], **more))


@pytest.mark.parametrize("draw", [png, gif, jpeg, webp_extended, webp_lossless, webp_lossy])
def test_an_image_costs_its_pixels(draw):
    assert cost({"type": "image", "source": encoded(*draw(600, 400))}) == 320


@pytest.mark.parametrize(
    "model, size, expected",
    [
        ("claude-sonnet-4-5", (1092, 1092), 1590),
        ("claude-sonnet-4-5", (8000, 8000), 1600),
        ("claude-sonnet-4-5", (8000, 400), 164),  # 1568 x 78.4 after scaling
        ("claude-opus-4-8", (8000, 8000), 4784),
        ("claude-sonnet-4-5", (1, 1), 1),
    ],
)
def test_a_large_image_is_scaled_down_first(model, size, expected):
    assert cost({"type": "image", "source": encoded(*png(*size))}, model=model) == expected


@pytest.mark.parametrize(
    "source",
    [
        {"type": "url", "url": "https://example.com/quay.png"},
        {"type": "file", "file_id": "file_1"},
        {"type": "base64", "media_type": "image/png", "data": "bm8gaW1hZ2U="},
        {"type": "base64", "media_type": "image/png", "data": "不是"},
        {"type": "base64", "media_type": "image/jpeg", "data": base64.b64encode(b"\xff\xd8" + b"\xff\xe0\x00" * 9)},
        encoded(*png(0, 0)),
        None,
    ],
)
def test_an_image_of_unknown_size_costs_the_default(source):
    assert cost({"type": "image", "source": source}) == tokens.IMAGE_UNREAD


def test_a_document_costs_its_text_or_its_pages():
    text = {"type": "document", "title": "Rota", "source": {"type": "text", "data": BAKERY}}
    parts = {"type": "document", "source": {"type": "content", "content": [{"type": "text", "text": BAKERY}]}}
    pdf = {"type": "document", "source": encoded("application/pdf", b"%PDF-1.7 /Type /Pages /Type /Page /Type/Page ")}
    linked = {"type": "document", "source": {"type": "url", "url": "https://example.com/rota.pdf"}}
    assert cost(text) == cost({"type": "text", "text": BAKERY}) + 2
    assert cost(parts) == cost({"type": "text", "text": BAKERY})
    assert cost(pdf) == 2 * tokens.PDF_PAGE
    assert cost(linked) == tokens.PDF_PAGE


def test_a_result_costs_its_text_and_its_images():
    image = {"type": "image", "source": encoded(*png(600, 400))}
    plain = cost({**RESULT, "content": BAKERY})
    assert cost({**RESULT, "content": [{"type": "text", "text": BAKERY}, image]}) == plain + 320


# ---- thinking


def test_thinking_of_the_current_turn_counts_and_earlier_thinking_does_not():
    thought = {"type": "thinking", "thinking": BAKERY, "signature": "c2ln" * 50}
    current = body(BAKERY, [CALL], [RESULT])
    thinking = copy.deepcopy(current)
    thinking["messages"][1]["content"].insert(0, thought)
    asked_again = [{"role": "assistant", "content": "Done."}, {"role": "user", "content": MEETING}]
    for one in (current, thinking):
        one["later"] = {**one, "messages": one["messages"] + asked_again}
    assert count(thinking) > count(current) + 15
    assert count(thinking["later"]) == count(current["later"])


# ---- odd bodies

ODD = [
    {},
    {"model": None, "messages": None, "system": 5, "tools": "no", "thinking": "yes", "output_config": []},
    {"model": "x", "messages": [None, 3, {}, {"role": "user"}, {"role": "user", "content": 7}]},
    body([None, 4, "bare", {}, {"type": None}, {"type": "text"}, {"type": "text", "text": None}]),
    body([{"type": "hologram", "payload": {"深": [1, 2.5, None, True]}}]),
    body([{"type": "tool_use"}, {"type": "tool_use", "name": 1, "input": None}, {"type": "tool_result"}]),
    body([{"type": "image"}, {"type": "document"}, {"type": "document", "source": {"type": "base64"}}]),
    body(
        [{"type": "web_search_tool_result", "content": [{"type": "web_search_result", "encrypted_content": "x" * 60}]}]
    ),
    body([{"type": "code_execution_tool_result", "content": {"type": "code_execution_result", "stdout": "ok"}}]),
    body([{"type": "search_result", "source": "https://example.com", "title": "T", "content": [{"type": "text"}]}]),
    body([{"type": "redacted_thinking", "data": "x" * 99}, {"type": "thinking"}]),
    body("\ud83d lone surrogate", tools=[{"name": "\ud83d", "input_schema": {}}]),
    body("x", tools=[None, {}, {"type": 5}, {"name": "a", "input_schema": None}], tool_choice="auto"),
    body("x", tool_choice={"type": "tool"}, output_format={"type": "json_schema", "schema": True}),
    body("<EOT><META_START> and \u2028 and \x00"),
]


@pytest.mark.parametrize("measure", [count, estimate])
@pytest.mark.parametrize("odd", ODD, ids=range(len(ODD)))
def test_no_body_is_too_odd_to_measure(measure, odd):
    assert measure(odd) >= 1


@pytest.mark.parametrize("measure", [count, estimate])
def test_deep_nesting_is_measured(measure):
    deep = "leaf"
    for _ in range(5000):
        deep = [{"type": "tool_result", "content": deep}]
    nested = {}
    for _ in range(5000):
        nested = {"a": nested}
    assert measure(body(deep)) > 5000
    assert measure(body([{"type": "tool_use", "name": "x", "input": nested}])) > 100


@pytest.mark.parametrize("filler", ["a", " ", "\n", "数", "😀", '"', " '", "\t ", "=-", "9"])
def test_a_long_run_of_one_thing_is_counted_quickly(filler):
    start = time.perf_counter()
    assert count(body(filler * (300_000 // len(filler)))) > 20
    assert time.perf_counter() - start < 5


def test_counting_leaves_the_body_as_it_was():
    request_body = after_tool_turns()
    before = copy.deepcopy(request_body)
    count(request_body), estimate(request_body)
    assert request_body == before


def test_threads_count_alike():
    tokens._encoding.cache_clear()
    counts = []
    threads = [threading.Thread(target=lambda: counts.append(count(body(PYTHON * 50)))) for _ in range(6)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert len(counts) == 6
    assert len(set(counts)) == 1


def test_an_estimate_takes_microseconds_whatever_the_size():
    small = body(BAKERY)
    large = with_tools(*[{**FERRY, "description": BAKERY * 25}] * 25, system=BAKERY * 500)

    def fastest(request_body):
        return min(_timed(request_body) for _ in range(20))

    assert fastest(small) < 0.0005
    assert fastest(large) < 0.002


def _timed(request_body):
    start = time.perf_counter()
    estimate(request_body)
    return time.perf_counter() - start


def test_a_long_text_is_estimated_from_windows_as_well_as_from_the_whole():
    mixed = (BAKERY + "\n" + PYTHON + MEETING) * 300
    assert estimate(body(mixed)) == pytest.approx(count(body(mixed)), rel=0.25)


def test_families_stand_newest_first_and_the_last_takes_the_rest():
    versions = [one.since for one in FAMILIES]
    assert versions == sorted(versions, reverse=True)
    assert versions[-1] == (0, 0)
