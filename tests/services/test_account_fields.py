"""What may be written into an account, and how it is stored."""

import ipaddress
from typing import Any

import pytest

from opus_api.config import Settings
from opus_api.services import account_fields
from opus_api.services.values import MOST_PATTERNS, FieldError

HERE = Settings(allow_private_upstreams=(ipaddress.ip_network("127.0.0.0/8"),))


def checked(provider: str = "openai", settings: Settings = HERE, **data: Any) -> dict[str, Any]:
    return account_fields.checked(provider, data, settings)


@pytest.mark.parametrize(
    "provider, typed, stored",
    [
        ("openai", "https://api.openai.com/v1", "https://api.openai.com/v1"),
        ("openai", "https://api.openai.com/v1/", "https://api.openai.com/v1"),
        ("openai", "https://api.openai.com", "https://api.openai.com/v1"),
        ("openai", "https://api.openai.com/", "https://api.openai.com/v1"),
        ("openai", " https://api.openai.com/v1/chat/completions ", "https://api.openai.com/v1"),
        ("openai", "https://openrouter.ai/api/v1", "https://openrouter.ai/api/v1"),
        ("openai", "https://host.example/custom", "https://host.example/custom"),
        ("openai", "http://127.0.0.1:11434", "http://127.0.0.1:11434/v1"),
        ("morph", "https://api.morphllm.com", "https://api.morphllm.com/v1"),
        ("anthropic", "https://api.anthropic.com", "https://api.anthropic.com"),
        ("anthropic", "https://api.anthropic.com/v1", "https://api.anthropic.com"),
        ("anthropic", "https://api.anthropic.com/v1/", "https://api.anthropic.com"),
        ("anthropic", "https://api.anthropic.com/v1/messages", "https://api.anthropic.com"),
        ("anthropic", "https://host.example/claude/v1", "https://host.example/claude"),
        ("anthropic", "", None),
    ],
)
def test_base_urls_follow_each_sdks_convention(provider: str, typed: str, stored: str | None) -> None:
    assert checked(provider, base_url=typed) == {"base_url": stored}


@pytest.mark.parametrize(
    "url",
    [
        "http://api.openai.com/v1",
        "https://api.openai.com:8443/v1",
        "https://user:password@api.openai.com/v1",
        "https://10.0.0.1/v1",
        "https://169.254.169.254/v1",
        "https://metadata.google.internal/v1",
        "https://[::1]/v1",
        "ftp://api.openai.com",
        "not an address",
    ],
)
def test_addresses_that_lead_inside_are_refused(url: str) -> None:
    with pytest.raises(FieldError, match=r"^base_url: "):
        checked(settings=Settings(), base_url=url)


@pytest.mark.parametrize(
    "field, value, sentence",
    [
        ("name", "", "name: is required."),
        ("name", "x" * 101, "name: must be at most 100 characters."),
        ("name", "a\nb", "name: must not contain control characters."),
        ("name", 5, "name: must be text."),
        ("api_key", 5, "api_key: must be text."),
        ("api_key", "two words", "api_key: must be printable ASCII without spaces."),
        ("api_key", "line\nbreak", "api_key: must be printable ASCII without spaces."),
        ("api_key", "sk-ant-oat01-abc", "api_key: Subscription tokens"),
        ("session_key", "sk-ant-oat01-abc", "session_key: Subscription tokens"),
        ("priority", "1", "priority: must be a whole number"),
        ("priority", True, "priority: must be a whole number"),
        ("priority", 1.5, "priority: must be a whole number"),
        ("max_concurrency", -1, "max_concurrency: must be a whole number between 0"),
        ("models", "gpt-*", "models: must be null or a list"),
        ("models", ["a", 5], "models[1]: must be text."),
        ("models", [""], "models[0]: is required."),
        ("model_map", [], "model_map: must be an object"),
        ("model_map", {"claude-*": 5}, "model_map.claude-*: must be text."),
        ("options", [], "options: must be an object."),
        ("options", {"colour": True}, "options.colour: is no option of openai; there are: "),
        ("options", {"vision": "yes"}, "options.vision: must be true or false."),
        ("options", {"system_role": "\ud800"}, "options.system_role: must not contain half of a character."),
        ("options", {"max_tokens": True}, "options.max_tokens: must be a whole number."),
        ("proxy", "socks5://proxy:1080", "proxy: must be an address"),
        ("proxy", "http://proxy:port", "proxy: is not an address."),
        ("colour", "red", "colour: is not a field of an account."),
    ],
)
def test_a_wrong_value_is_refused_by_a_sentence_that_names_the_field(field: str, value: Any, sentence: str) -> None:
    with pytest.raises(FieldError) as refusal:
        checked(**{field: value})
    assert str(refusal.value).startswith(sentence)
    assert refusal.value.field == sentence.partition(": ")[0]


def test_a_secret_that_is_absent_stays() -> None:
    assert checked(api_key=None, session_key="", name=" one ") == {"name": "one"}


def test_a_model_may_be_named_with_its_provider() -> None:
    mapped = {"claude-*": "openai/gpt-5", "small": "meta/llama"}
    assert checked(model_map=mapped) == {"model_map": {"claude-*": "gpt-5", "small": "meta/llama"}}


def test_what_get_shows_is_ignored() -> None:
    assert checked(id=1, state_reason="x", usage_count=5, created_at="2026-01-01T00:00:00Z") == {}


@pytest.mark.parametrize("provider", ["practice", "amazon", None, 5])
def test_only_providers_with_accounts_take_accounts(provider: Any) -> None:
    with pytest.raises(FieldError, match=r"^provider: "):
        account_fields.provider(provider)


def test_practice_says_why_it_takes_none() -> None:
    with pytest.raises(FieldError, match="built in and needs no account"):
        account_fields.provider("practice")


def test_required_fields_follow_from_the_providers_form() -> None:
    account_fields.require("openai", {"name": "one"})
    with pytest.raises(FieldError, match=r"^api_key: is required"):
        account_fields.require("morph", {"name": "one"})
    with pytest.raises(FieldError, match=r"^name: is required"):
        account_fields.require("openai", {})


@pytest.mark.parametrize(
    "word, typed",
    [
        ("vision=false", ("vision", False)),
        ("vision=ON", ("vision", True)),
        ("max_tokens=4096", ("max_tokens", 4096)),
        ("vision=perhaps", ("vision", "perhaps")),  # refused with the others, by its type
    ],
)
def test_options_of_the_command_line_are_typed_by_the_providers_table(word: str, typed: tuple[str, Any]) -> None:
    assert account_fields.option_from_text("openai", word) == typed


@pytest.mark.parametrize("word", ["colour=red", "vision"])
def test_unknown_options_of_the_command_line_are_refused(word: str) -> None:
    with pytest.raises(FieldError, match=r"^options\."):
        account_fields.option_from_text("openai", word)


@pytest.mark.parametrize(
    "field, made",
    [("models", lambda n: [f"m-{i}" for i in range(n)]), ("model_map", lambda n: {f"m-{i}": "x" for i in range(n)})],
)
def test_more_names_than_a_form_shows_are_refused_with_what_to_do(field: str, made: Any) -> None:
    assert len(checked(**{field: made(MOST_PATTERNS)})[field]) == MOST_PATTERNS
    with pytest.raises(
        FieldError, match=rf"^{field}: has more than 200 entries; one such as claude-\* stands for several"
    ):
        checked(**{field: made(MOST_PATTERNS + 1)})
