"""What clients will do, and what is done to the gateway: drawn from a seed, so that a run can be had again. Pure."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from tests.chaos import faults

# Which accounts serve a model: those of one provider, or of both.
FAMILIES = ("anthropic-chaos", "openai-chaos", "chaos")
GLOBS = {"anthropic": ["anthropic-chaos*", "chaos*"], "openai": ["openai-chaos*", "chaos*"]}
NOBODY = "nobody"  # serves these

# What heals when another account is asked (or, at the client's own mistakes, must not be asked again).
TROUBLE = (
    *("status:500", "status:502", "status:503", "status:529", "status:401", "status:408", "status:404"),
    *("limit:1", "limit:2", "reset", "html", "empty", "error", "length", "redirect"),
    *("silent", "rst:1", "rst:40", "rst:700", "rst:1100", "cut:1", "cut:3", "cut:5", "stall:1", "stall:4"),
    *("unended:1", "unended:4", "error:1", "error:4", "status:400", "status:413"),
)
STRANGE = ("delay:200", "hold:700", "split", "ends")
HUGE = ("line:64", "bomb:256")


@dataclass(frozen=True)
class Job:
    """One request of the swarm. Times in seconds."""

    at: float  # after the start
    tag: str
    model: str  # with the script in it
    dialect: str
    via: str  # raw | sdk
    stream: bool
    leaves: float | None = None  # after this time, whatever has come
    resets: bool = False  # it leaves with RST
    slow: bool = False  # it reads a few bytes at a time
    prompt: str = "Hello"  # has the script when the model has none

    @property
    def script(self) -> faults.Script:
        return faults.script_of({"model": self.model, "messages": [{"content": self.prompt}]})


def jobs(
    seed: int, seconds: float, rate: float, trouble: float = 0.15, leaving: float = 0.1, sdk: float = 0.3
) -> list[Job]:
    """``rate`` per second, evenly; shares of requests that meet trouble, of clients that leave early, of SDKs."""
    draw = random.Random(seed)
    return [_job(draw, n, n / rate, trouble, leaving, sdk) for n in range(int(seconds * rate))]


def _job(draw: random.Random, number: int, at: float, trouble: float, leaving: float, sdk: float) -> Job:
    tag = f"q{number}"
    family = NOBODY if draw.random() < 0.01 else draw.choice(FAMILIES)
    script = "~".join([family, tag, *_script(draw, trouble)])
    leaves = draw.choice((0.0, 0.01, 0.05, 0.2, 0.5)) if draw.random() < leaving else None
    if "drip" in script:
        leaves = 3.0
    return Job(
        at=at,
        tag=tag,
        model=script,
        dialect=draw.choice(("anthropic", "openai")),
        via="sdk" if draw.random() < sdk and leaves is None else "raw",
        stream=draw.random() < 0.7,
        leaves=leaves,
        resets=draw.random() < 0.5,
        slow=draw.random() < 0.03,
    )


def _script(draw: random.Random, trouble: float) -> list[str]:
    chance = draw.random()
    if chance < trouble * 0.01:
        return [draw.choice((*HUGE, "drip", "drip"))]
    if chance < trouble:
        return [draw.choice(TROUBLE) for _ in range(draw.choice((1, 1, 1, 2)))]
    return [draw.choice(STRANGE)] if chance < trouble + 0.1 else []


def of_one_model(job: Job, round_: int) -> Job:
    """The same with its script in the prompt: a gateway is not asked for a new model each time. No two rounds have a
    prompt in common, so that each request is a conversation of its own."""
    tag = f"{job.tag}r{round_}"
    family, _, *script = job.model.split("~")
    return replace(job, at=0.0, model=family, tag=tag, prompt="~".join([family, tag, *script]))


@dataclass(frozen=True)
class Act:
    """Something that is done to the gateway or to what it needs. ``seconds``: how long it lasts."""

    at: float
    what: str
    seconds: float = 0.0


def acts(seed: int, seconds: float, kinds: Sequence[tuple[str, float]], every: float) -> list[Act]:
    """One of ``kinds`` (what, how long) each ``every`` seconds, more or less; the last moments are left in peace."""
    draw = random.Random(seed + 1)
    found, at = [], every / 2
    while at < seconds - every:
        what, lasts = draw.choice(kinds)
        found.append(Act(round(at, 2), what, lasts))
        at += lasts + every * draw.uniform(0.7, 1.3)
    return found
