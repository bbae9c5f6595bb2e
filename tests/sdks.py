"""The vendors' SDKs, loaded by the first test that uses one: together they take as long as all files of the tests, and
most processes of a run come to none of these tests. Who has ``from tests import sdks`` says ``sdks.anthropic``."""

from importlib import import_module
from types import ModuleType


def __getattr__(name: str) -> ModuleType:
    if name in ("anthropic", "openai"):
        return import_module(name)
    raise AttributeError(name)
