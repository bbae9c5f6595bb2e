"""What a model's name stands for, and what can be served at all."""

from typing import Any

import pytest

from opus_api.gateway import catalog as catalog_module
from opus_api.gateway.catalog import Catalog, Resolution, Target, best_match, permits
from opus_api.services.snapshot import AccountValue
from opus_api.wire.errors import NotFound
from tests.gateway.values import account, snapshot


def catalog(*accounts: AccountValue, practice_only: bool = False, **more: Any) -> Catalog:
    return Catalog(snapshot(*accounts, **more), practice_only)


def told(resolution: Resolution) -> list[tuple[str, str, int | None]]:
    """(provider, model, account) of each target"""
    return [(t.provider, t.model, t.account.id if t.account else None) for t in resolution.targets]


def refusal(found: Catalog, name: str, last_model: str = "") -> str:
    with pytest.raises(NotFound) as caught:
        found.resolve(name, last_model)
    return caught.value.message


# ---- who serves a name


@pytest.mark.parametrize(
    "fields, name, model",
    [
        ({"models": ("gpt-5",)}, "gpt-5", "gpt-5"),
        ({"models": ("gpt-*",)}, "gpt-5-mini", "gpt-5-mini"),
        ({"models": ("*",)}, "anything/at all", "anything/at all"),
        ({"models": ("gpt-5",)}, "GPT-5", ""),
        ({"models": ()}, "gpt-5", ""),
        ({"listed_models": ("gpt-5",)}, "gpt-5", "gpt-5"),
        ({"listed_models": ("gpt-5",)}, "gpt-4", ""),
        ({"listed_models": ("gpt-5",), "models": ("gpt-4",)}, "gpt-5", ""),
        ({"listed_models": ("gpt-5",), "models": ("gpt-4",)}, "gpt-4", "gpt-4"),
        ({"listed_models": None}, "gpt-5", ""),
        ({"model_map": {"claude-*": "gpt-5"}}, "claude-sonnet-4.5", "gpt-5"),
        ({"model_map": {"claude-*": "gpt-5", "claude-opus-*": "gpt-6"}}, "claude-opus-4", "gpt-6"),
        ({"model_map": {"claude-*": "gpt-5", "claude-x": "gpt-7"}}, "claude-x", "gpt-7"),
        ({"models": ("gpt-5",), "model_map": {"small": "gpt-5-nano"}}, "small", "gpt-5-nano"),
    ],
)
def test_an_account_serves_what_a_person_named_else_what_its_provider_lists(
    fields: dict[str, Any], name: str, model: str
) -> None:
    found = catalog(account(1, **fields))
    if model:
        assert told(found.resolve(name)) == [("openai", model, 1)]
    else:
        assert refusal(found, name).startswith(f"model: {name}")


@pytest.mark.parametrize(
    "name, model",
    [
        ("claude-4.5-opus-high", "claude-opus-4-5"),
        ("claude-4.5-opus-low", "claude-opus-4-5"),
        ("claude-sonnet-4.5", "claude-sonnet-4-5"),
        ("claude-sonnet-3.5", "claude-3-5-sonnet-20241022"),
        ("claude-opus-4-20250514", "claude-opus-4-20250514"),
        ("claude-sonnet-4-20250514", "claude-sonnet-4-20250514"),
        ("claude-haiku-4-20250514", "claude-haiku-4-5"),
        ("claude-3-opus-20240229", "claude-3-opus-20240229"),
    ],
)
@pytest.mark.parametrize("fields", [{}, {"listed_models": ("claude-new",)}, {"models": ("*",)}])
def test_every_documented_name_reaches_anthropic(name: str, model: str, fields: dict[str, Any]) -> None:
    assert told(catalog(account(1, "anthropic", **fields)).resolve(name)) == [("anthropic", model, 1)]


def test_a_documented_name_stays_within_the_models_a_person_chose() -> None:
    found = catalog(account(1, "anthropic", models=("claude-sonnet-4-5",)))
    assert told(found.resolve("claude-sonnet-4.5")) == [("anthropic", "claude-sonnet-4-5", 1)]
    assert "needs" in refusal(found, "claude-3-opus-20240229")


@pytest.mark.parametrize("name, served", [("claude-sonnet-5", True), ("claude-sonnet-5-2026", False), ("gpt-5", False)])
def test_an_undated_alias_of_a_listed_model_is_served(name: str, served: bool) -> None:
    found = catalog(account(1, "anthropic", listed_models=("claude-sonnet-5-20260101",)))
    assert bool(found._targets(name)) == served


@pytest.mark.parametrize(
    "name, model",
    [
        ("claude-sonnet-4-5-20250929", "claude-sonnet-4.5"),
        ("claude-opus-4-5", "claude-opus-4.5"),
        ("claude-4.5-opus-high", "claude-opus-4.5"),
        ("amazonq/claude-haiku-4-5", "claude-haiku-4.5"),
        ("auto", "auto"),
    ],
)
def test_names_reach_amazon_q_as_it_writes_them(name: str, model: str) -> None:
    listed = ("auto", "claude-sonnet-4.5", "claude-opus-4.5")
    found = catalog(account(1, "amazonq", listed_models=listed))
    assert told(found.resolve(name)) == [("amazonq", model, 1)]
    with pytest.raises(NotFound):
        found.resolve("claude-opus-4-7")


def test_before_anthropic_was_ever_asked_its_own_names_are_trusted() -> None:
    found = catalog(account(1, "anthropic"))
    assert told(found.resolve("claude-sonnet-7")) == [("anthropic", "claude-sonnet-7", 1)]
    assert refusal(found, "gpt-5") == "model: gpt-5"


def test_all_accounts_that_serve_a_name_are_targets_whatever_their_provider() -> None:
    accounts = [
        account(1, models=("shared",)),
        account(2, "anthropic", models=("shared",)),
        account(3, models=("other",)),
        account(4, "morph", models=("*",)),
    ]
    targets = [("openai", "shared", 1), ("anthropic", "shared", 2), ("morph", "shared", 4)]
    assert told(catalog(*accounts).resolve("shared")) == targets


# ---- provider/model


@pytest.mark.parametrize(
    "name, targets",
    [
        ("openai/gpt-9", [("openai", "gpt-9", 1)]),  # whatever it lists
        ("openai/vendor/gpt-9", [("openai", "vendor/gpt-9", 1)]),
        ("anthropic/claude-x", [("anthropic", "claude-x", 2)]),
        ("anthropic/gpt-9", []),  # a person chose its models
        ("vendor/model", [("openai", "vendor/model", 1)]),  # no provider of ours: a model's own slash
        ("openai/", []),
        ("morph/auto", []),
    ],
)
def test_a_provider_before_the_name_picks_its_accounts(name: str, targets: list[tuple[str, str, int]]) -> None:
    found = catalog(
        account(1, listed_models=("gpt-5", "vendor/model")),
        account(2, "anthropic", models=("claude-*",)),
    )
    assert [(t.provider, t.model, t.account and t.account.id) for t in found._targets(name)] == targets


# ---- the model map


@pytest.mark.parametrize(
    "name, target",
    [("a", "exact"), ("ab", "longer"), ("axyz", "shorter"), ("b", ""), ("A", "")],
)
def test_an_exact_rule_wins_over_a_glob_and_a_longer_glob_over_a_shorter(name: str, target: str) -> None:
    assert best_match({"a*": "shorter", "a": "exact", "a[b]": "longer"}, name) == target


def test_a_rule_renames_before_accounts_are_looked_for() -> None:
    found = catalog(
        account(1, models=("gpt-5",)),
        account(2, "morph", listed_models=("auto",)),
        rules={"claude-*": "morph/auto", "mini": "gpt-5", "dead": "openai/none"},
    )
    assert told(found.resolve("claude-sonnet-4.5")) == [("morph", "auto", 2)]
    assert told(found.resolve("mini")) == [("openai", "gpt-5", 1)]
    assert refusal(found, "dead").startswith("model: dead")


def test_a_rule_may_point_to_practice() -> None:
    found = catalog(account(1, models=("gpt-5",)), rules={"trial": "practice/trial"})
    assert told(found.resolve("trial")) == [("practice", "trial", None)]


# ---- haiku


@pytest.mark.parametrize(
    "rules, last, targets, substituted",
    [
        ({}, "gpt-5", [("openai", "gpt-5", 1)], True),
        ({"small": "gpt-5-nano"}, "gpt-5", [("openai", "gpt-5-nano", 1)], True),
        ({"small": "none"}, "gpt-5", [("openai", "gpt-5", 1)], True),
        ({"*haiku*": "gpt-5-nano"}, "gpt-5", [("openai", "gpt-5-nano", 1)], False),
    ],
)
def test_a_haiku_that_nothing_serves_goes_to_the_small_model_else_to_the_last_used(
    rules: dict[str, str], last: str, targets: list[tuple[str, str, int]], substituted: bool
) -> None:
    found = catalog(account(1, models=("gpt-5", "gpt-5-nano")), rules=rules)
    resolution = found.resolve("claude-haiku-4-5-20251001", last)
    assert (told(resolution), resolution.substituted) == (targets, substituted)


def test_a_haiku_before_anything_was_used_is_unknown() -> None:
    found = catalog(account(1, models=("gpt-5",)))
    assert refusal(found, "claude-haiku-9") == "model: claude-haiku-9"
    assert "claude-haiku-4-20250514" in refusal(found, "claude-haiku-4-20250514", "gone")


def test_a_haiku_that_an_account_serves_is_not_substituted() -> None:
    found = catalog(account(1, "anthropic"), rules={"small": "claude-sonnet-5"})
    resolution = found.resolve("claude-haiku-4-20250514", "claude-sonnet-5")
    assert (told(resolution), resolution.substituted) == ([("anthropic", "claude-haiku-4-5", 1)], False)


# ---- unknown names


def test_an_unknown_name_is_told_close_matches() -> None:
    found = catalog(account(1, models=("gpt-5", "gpt-5-mini", "llama-4")), rules={"gpt5": "gpt-5"})
    message = refusal(found, "gpt-55")
    assert message.startswith("model: gpt-55 (close matches: ")
    assert "gpt-5" in message
    assert "llama" not in message
    assert refusal(found, "zzz") == "model: zzz"


def test_a_documented_name_is_told_what_it_needs() -> None:
    message = refusal(catalog(account(1, models=("gpt-5",))), "claude-sonnet-4.5")
    assert message == (
        "model: claude-sonnet-4.5 (needs an account of Anthropic or Amazon Q Developer, or a rule such as claude-* -> "
        "provider/model)"
    )


# ---- practice


@pytest.mark.parametrize(
    "accounts, seen, practice_only, serves",
    [
        ((), False, False, True),
        ((), True, False, False),  # one existed and was deleted
        ((account(1, models=("gpt-5",)),), True, False, False),
        ((account(1, models=("gpt-5",)),), False, False, False),
        ((account(1, models=("gpt-5",), state="disabled"),), True, False, False),
        ((account(1, models=("gpt-5",)),), True, True, True),
    ],
)
def test_practice_serves_every_name_only_while_no_real_account_ever_existed(
    accounts: tuple[AccountValue, ...], seen: bool, practice_only: bool, serves: bool
) -> None:
    found = catalog(*accounts, seen=seen, practice_only=practice_only)
    assert told(found.resolve("practice/any")) == [("practice", "any", None)]
    if serves:
        assert told(found.resolve("any name")) == [("practice", "any name", None)]
    else:
        assert refusal(found, "any name") == "model: any name"


def test_with_practice_only_no_account_is_asked() -> None:
    found = catalog(account(1, models=("gpt-5",)), practice_only=True)
    assert told(found.resolve("gpt-5")) == [("practice", "gpt-5", None)]


# ---- the list


def test_the_list_holds_what_can_be_served_once_each() -> None:
    found = catalog(
        account(1, listed_models=("gpt-5", "gpt-5-mini"), model_map={"my-*": "gpt-5", "mine": "gpt-5"}),
        account(2, models=("gpt-5", "llama-*")),
        account(3, "anthropic", models=("claude-sonnet-4-5",)),
        rules={"alias": "gpt-5", "dead": "nowhere", "small": "gpt-5-mini", "claude-x*": "gpt-5"},
    )
    names = list(found.names())
    assert sorted(names) == ["alias", "claude-sonnet-4-5", "claude-sonnet-4.5", "gpt-5", "gpt-5-mini", "mine"]
    assert len(names) == len(set(names))


def test_without_accounts_the_list_shows_what_to_try() -> None:
    names = list(catalog().names())
    assert "practice/practice" in names
    assert "claude-sonnet-4.5" in names
    assert list(catalog(seen=True).names()) == []


def test_an_entry_reads_in_both_families_of_sdks() -> None:
    found = catalog(account(1, models=("gpt-5",)))
    assert found.model_info("gpt-5", found.names()["gpt-5"]) == {
        "type": "model",
        "id": "gpt-5",
        "display_name": "gpt-5",
        "created_at": "2023-11-14T22:13:20Z",
        "object": "model",
        "created": 1_700_000_000,
        "owned_by": "openai",
    }


def test_a_list_of_many_names_in_many_accounts_is_looked_through_once() -> None:
    listed = tuple(f"model-{number}" for number in range(400))
    found = catalog(*(account(number, "openai", listed_models=listed) for number in range(1, 101)))
    asked: list[str] = []
    serves = catalog_module.served_as

    def counted(one: AccountValue, name: str) -> str:
        asked.append(name)
        return serves(one, name)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(catalog_module, "served_as", counted)
        assert len(found.names()) == 400
    assert len(asked) == 400  # not for each of the hundred accounts


def test_names_that_clients_invent_do_not_fill_the_memory() -> None:
    found = catalog(account(1, models=("*",)))
    for number in range(25_000):
        found.resolve(f"invented-{number}")
    assert len(found._cache) <= 10_000


@pytest.mark.parametrize(
    "globs, name, allowed",
    [
        (None, "gpt-5", True),
        (["gpt-*"], "gpt-5", True),
        (["gpt-*"], "openai/gpt-5", True),
        (["openai/*"], "openai/gpt-5", True),
        (["openai/*"], "gpt-5", False),
        (["claude-*"], "openai/gpt-5", False),
        (["claude-*"], "vendor/claude-x", False),  # no provider of ours: the slash is part of the name
        ([], "gpt-5", False),
    ],
)
def test_a_key_may_use_what_its_globs_allow(globs: list[str] | None, name: str, allowed: bool) -> None:
    assert permits(globs, name, Resolution((Target("openai", "gpt-5", None),))) is allowed


def test_what_stands_in_for_a_name_must_be_allowed_itself() -> None:
    stand_in = Resolution((Target("openai", "gpt-5", None),), substituted=True)
    assert not permits(["*haiku*"], "claude-haiku", stand_in)
    assert permits(["*haiku*", "gpt-*"], "claude-haiku", stand_in)
