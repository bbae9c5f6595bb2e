"""WHAT CLIENTS SPEAK. Pure: a body becomes a Call, events become bytes. One file per dialect, one line here."""

from collections.abc import Mapping
from types import ModuleType

from opus_api.dialects import anthropic, openai

DIALECTS: Mapping[str, ModuleType] = {anthropic.NAME: anthropic, openai.NAME: openai}
