"""What a load consists of. A profile is a TOML file in ``loadtests/profiles/``; options of the command change it."""

import dataclasses
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import msgspec

from contracts.mazes import QUESTION

PROFILES = Path(__file__).parent / "profiles"
Kind = Literal["json", "form", "stream", "chat", "chat_stream"]
Loop = Literal["open", "closed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """``level`` is a rate in requests a second (open loop) or a number of users (closed loop), for ``seconds``."""

    seconds: float
    level: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """Shares are of all requests, 0 to 1. ``kinds`` are weights of the requests that have no bad manners.

    open: requests come at their time, whatever became of those before. closed: each user waits for its answer.
    """

    stages: list[Stage]
    loop: Loop = "open"
    arrivals: Literal["poisson", "even"] = "poisson"
    seed: int = 1
    kinds: dict[Kind, float] = field(default_factory=lambda: {"json": 1.0, "form": 1.0, "stream": 2.0})
    questions: list[str] = field(default_factory=lambda: [QUESTION])
    maze_sizes: list[int] = field(default_factory=lambda: [4, 5, 6])
    repeated_share: float = 0.5
    num_repeated: int = 8
    cancel_share: float = 0.0
    hang_up_share: float = 0.0
    slow_reader_share: float = 0.0
    max_tokens: int = 256
    temperature: float | None = 0.0
    timeout_s: float = 60.0
    drain_s: float = 30.0

    def __post_init__(self) -> None:
        """Raises ``ValueError``: something in it cannot be."""
        shares = (self.repeated_share, self.cancel_share, self.hang_up_share, self.slow_reader_share)
        if not all(0 <= share <= 1 for share in shares) or sum(shares[1:]) > 1:
            raise ValueError(
                "a share is 0 to 1, and those of cancels, of hang-ups and of slow readers together at most 1"
            )
        if not self.stages or any(stage.seconds <= 0 or stage.level <= 0 for stage in self.stages):
            raise ValueError("a profile has at least one stage; each has seconds and a level above 0")
        if any(weight < 0 for weight in self.kinds.values()) or not sum(self.kinds.values()):
            raise ValueError("of the kinds of requests at least one has a weight above 0, and none one below")
        if not self.questions or not self.maze_sizes or self.num_repeated < 1:
            raise ValueError("at least one question, one maze size and one repeated picture are needed")

    @property
    def duration_s(self) -> float:
        return sum(stage.seconds for stage in self.stages)

    @property
    def window_s(self) -> float:
        """Width of what is shown as one point of time: at most sixty of them, of a second or more."""
        return max(1.0, self.duration_s / 60)


def load_profile(name: str, changes: Mapping[str, Any]) -> Profile:
    """The profile of a name or of a file, with fields changed. Raises ``ValueError`` that names what is wrong."""
    path = Path(name) if name.endswith(".toml") else PROFILES / f"{name}.toml"
    try:
        fields = tomllib.loads(path.read_text())
    except FileNotFoundError:
        known = ", ".join(sorted(file.stem for file in PROFILES.glob("*.toml")))
        raise ValueError(f"there is no profile {name}; known are {known}, or give the path of a .toml file") from None
    return decode_profile({**fields, **changes})


def decode_profile(fields: Mapping[str, Any]) -> Profile:
    """Raises ``ValueError``: a field is unknown, or is what it cannot be."""
    unknown = set(fields) - {known.name for known in dataclasses.fields(Profile)}
    if unknown:
        raise ValueError(f"a profile has no {', '.join(sorted(unknown))}")
    try:
        return msgspec.convert(fields, Profile)
    except msgspec.ValidationError as error:
        raise ValueError(f"the profile: {error}") from None
