"""Morph: OpenAI Chat Completions with habits of its own. Pure."""

from dataclasses import replace

from opus_api.upstreams.base import Field
from opus_api.upstreams.openai_compatible import OPTIONS, OpenAICompatible

# Its apply models answer 500 to content parts, so text travels as one string; files are not documented.
DEFAULTS = {"string_content": True, "files": False}

UPSTREAM = OpenAICompatible(
    name="morph",
    label="Morph",
    default_base_url="https://api.morphllm.com/v1",
    fields=(
        Field("api_key", "API key", required=True, secret=True, help="From the Morph dashboard."),
        Field("base_url", "Base URL", default="https://api.morphllm.com/v1", help="With /v1."),
    ),
    options=tuple(replace(option, default=DEFAULTS.get(option.name, option.default)) for option in OPTIONS),
    terms="Morph serves its own models, not Claude: map claude-* to one of them only where that is what you want.",
)
