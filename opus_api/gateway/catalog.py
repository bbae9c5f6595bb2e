"""Model names: what a client's name stands for, which accounts serve it, and what can be served at all (M8, M9)."""

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Any

from opus_api.services.snapshot import AccountValue, Snapshot
from opus_api.upstreams import UPSTREAMS
from opus_api.upstreams.practice import UPSTREAM as PRACTICE
from opus_api.wire.errors import NotFound

SMALL = "small"  # the rule for background calls of clients (Claude Code asks for a haiku model)
PRACTICE_MODELS = ("claude-sonnet-4.5", "claude-4.5-opus-high", "claude-haiku-4-20250514", "practice/practice")
CLAUDE_PROVIDERS = ("anthropic", "amazonq")  # they serve Claude under its vendor's names
MOST_CACHED = 10_000  # names; clients choose them
MOST_LISTS = 512  # of accounts and keys


@dataclass(frozen=True, slots=True)
class Target:
    """One way to serve a name: an account (None: the built-in practice provider) and the model to ask it for."""

    provider: str
    model: str
    account: AccountValue | None


@dataclass(frozen=True, slots=True)
class Resolution:
    targets: tuple[Target, ...]
    substituted: bool = False


class Catalog:
    """The names of one snapshot. Resolving is cached: a name always means the same within a snapshot."""

    def __init__(self, snapshot: Snapshot, practice_only: bool):
        self.snapshot = snapshot
        self._practice_only = practice_only
        self._practice_serves_all = practice_only or not (snapshot.real_account_seen or snapshot.accounts)
        self._cache: dict[str, tuple[Target, ...]] = {}

    def resolve(self, name: str, last_model: str = "") -> Resolution:
        """``last_model``: the name that was served last, for haiku calls nobody serves. Raises NotFound."""
        if targets := self._targets(name):
            return Resolution(targets)
        if "haiku" in name.lower():
            for stand_in in (self.snapshot.rules.get(SMALL, ""), last_model):
                if stand_in and (targets := self._targets(stand_in)):
                    return Resolution(targets, substituted=True)
        raise NotFound(self._unknown(name))

    def without_account(self, name: str) -> Target:
        """Which provider and model a name stands for to who brings a credential: accounts only hint at it.

        Raises NotFound.
        """
        ruled = self._ruled(name)
        provider, _, bare = ruled.partition("/")
        if bare and provider in UPSTREAMS and not self._practice_only:
            return Target(provider, UPSTREAMS[provider].own_name(UPSTREAMS[provider].model_names.get(bare, bare)), None)
        if served := self._targets(name):
            return Target(served[0].provider, served[0].model, None)
        for one in CLAUDE_PROVIDERS:
            if documented := UPSTREAMS[one].model_names.get(ruled, ""):
                return Target(one, documented, None)
        if ruled.startswith("claude-"):
            return Target(CLAUDE_PROVIDERS[0], ruled, None)
        return self.resolve(name).targets[0]

    def _targets(self, name: str) -> tuple[Target, ...]:
        found = self._cache.get(name)
        if found is None:
            if len(self._cache) >= MOST_CACHED:
                self._cache.clear()
            found = self._cache[name] = tuple(self._find(self._ruled(name)))
        return found

    def _ruled(self, name: str) -> str:
        """What the model map makes of a name; an exact rule wins over a glob, a longer glob over a shorter one."""
        return best_match(self.snapshot.rules, name) or name

    def _find(self, name: str) -> Iterator[Target]:
        provider, slash, bare = name.partition("/")
        if self._practice_only or provider == PRACTICE.name:
            yield Target(PRACTICE.name, bare or name, None)
            return
        is_addressed = bool(slash and bare and provider in UPSTREAMS)
        nobody = True
        for account in self.snapshot.accounts:
            if is_addressed:
                model = _addressed(account, bare) if account.provider == provider else ""
            else:
                model = served_as(account, name)
            if model:
                nobody = False
                yield Target(account.provider, model, account)
        if nobody and self._practice_serves_all:
            yield Target(PRACTICE.name, name, None)

    def _unknown(self, name: str) -> str:
        if providers := [p.label for p in UPSTREAMS.values() if name in p.model_names]:
            needs = f"an account of {' or '.join(providers)}, or a rule such as claude-* -> provider/model"
            return f"model: {name} (needs {needs})"
        close = difflib.get_close_matches(name, list(self.names()), 3, 0.6)
        return f"model: {name}" + (f" (close matches: {', '.join(close)})" if close else "")

    # ---- the list

    def names(self, globs: Iterable[str] | None = None) -> dict[str, Target]:
        """Every name that can be said and served, with its first target; ``globs``: for a key with these ``models``."""
        names: dict[str, Target] = {}
        for name in self._sayable():
            # Not by _targets: of a large pool the others would be looked through for each name.
            first = None if name in names else next(self._find(self._ruled(name)), None)
            if first and permits(globs, name, Resolution((first,))):
                names[name] = first
        return names

    def _sayable(self) -> Iterator[str]:
        yield from (pattern for pattern in self.snapshot.rules if not is_glob(pattern) and pattern != SMALL)
        for account in self.snapshot.accounts:
            if account.state in ("disabled", "invalid"):
                continue
            yield from (pattern for pattern in (*account.model_map, *(account.models or ())) if not is_glob(pattern))
            yield from account.listed_models or ()
            yield from UPSTREAMS[account.provider].model_names
        if self._practice_serves_all:
            yield from PRACTICE_MODELS

    def model_info(self, name: str, target: Target) -> dict[str, Any]:
        """One entry that both SDK families read: Anthropic's members and OpenAI's."""
        created = datetime.fromtimestamp(int(target.account.created_at) if target.account else 0, UTC)
        return {
            "type": "model",
            "id": name,
            "display_name": name,
            "created_at": created.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "object": "model",
            "created": int(created.timestamp()),
            "owned_by": target.provider,
        }


def only(resolution: Resolution, account_id: int, name: str) -> Resolution:
    """What is left when only this account may answer. Raises NotFound."""
    targets = tuple(t for t in resolution.targets if t.account is not None and t.account.id == account_id)
    if not targets:
        raise NotFound(f"model: {name} (this account does not serve it)")
    return Resolution(targets, resolution.substituted)


def is_glob(pattern: str) -> bool:
    return any(mark in pattern for mark in "*?[")


def best_match(rules: Mapping[str, str], name: str) -> str:
    """The target of the rule that fits best, "" when none does."""
    if name in rules:
        return rules[name]
    return next((rules[glob] for glob in _globs(tuple(rules)) if fnmatchcase(name, glob)), "")


def _fits(name: str, patterns: Iterable[str]) -> bool:
    patterns = tuple(patterns)
    return (name in patterns and not is_glob(name)) or any(fnmatchcase(name, glob) for glob in _globs(patterns))


# Every name is looked for in every account's lists, of which a big provider has hundreds of names: what is asked of a
# list is worked out once.


@lru_cache(MOST_LISTS)
def _globs(patterns: tuple[str, ...]) -> tuple[str, ...]:
    """Those that are no plain names, the longest first."""
    return tuple(sorted(filter(is_glob, patterns), key=len, reverse=True))


@lru_cache(MOST_LISTS)
def _said(listed: tuple[str, ...]) -> frozenset[str]:
    """What a list of models lets one say: Anthropic lists dated ids and takes the undated aliases of them, too."""
    return frozenset(listed) | {model[: at.start()] for model in listed for at in re.finditer("-20", model)}


def permits(globs: Iterable[str] | None, name: str, resolution: Resolution) -> bool:
    """Whether a key with these ``models`` may use a name: as the client says it, or without its provider. What stands
    in for another name has to be allowed itself."""
    if globs is None:
        return True
    names = {name, resolution.targets[0].model} if resolution.substituted else {name}
    return all(_fits(said, globs) or _fits(_bare(said), globs) for said in names)


def _bare(name: str) -> str:
    provider, slash, bare = name.partition("/")
    return bare if slash and provider in UPSTREAMS else name


def served_as(account: AccountValue, name: str) -> str:
    """The provider's model under which this account serves a name, "" when it does not."""
    if mapped := best_match(account.model_map, name):
        return mapped
    upstream = UPSTREAMS[account.provider]
    documented = upstream.model_names.get(name, "")
    own = upstream.own_name(name)
    if account.models is not None:
        if _fits(name, account.models) or _fits(own, account.models):
            return documented or own
        return documented if documented and _fits(documented, account.models) else ""
    if documented:
        return documented
    if account.listed_models is None:  # never asked with success: trust the vendor's own names
        return own if account.provider in CLAUDE_PROVIDERS and name.startswith("claude-") else ""
    return own if own in _said(account.listed_models) else ""


def _addressed(account: AccountValue, name: str) -> str:
    """The same for ``provider/model``: only a person's own list of models limits what a client may ask for."""
    mapped = served_as(account, name)
    return mapped or (UPSTREAMS[account.provider].own_name(name) if account.models is None else "")
