"""What each request is: its kind, its manner, its picture and its question, as a pure function of its number."""

import io
import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Literal

from contracts.maze_pictures import draw_maze
from contracts.mazes import generate
from loadtests.profile import Kind, Profile

# polite: reads to the end. cancel: asks the server to end it once it has begun. hang_up: closes the connection then.
# slow: takes a little at a time.
Manner = Literal["polite", "cancel", "hang_up", "slow"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """One request. ``picture`` is a PNG file; ``is_repeated`` if it is one of the few that are sent often."""

    number: int
    kind: Kind
    manner: Manner
    question: str
    picture: bytes
    is_repeated: bool

    @property
    def name(self) -> str:
        """What it is counted as."""
        return self.kind if self.manner == "polite" else self.manner


def mixed(profile: Profile) -> Callable[[int], Ask]:
    """The function from a request's number to the request."""
    kinds, weights = list(profile.kinds), list(profile.kinds.values())

    def ask(number: int) -> Ask:
        rng = random.Random(f"mix:{profile.seed}:{number}")
        manner = _manner(profile, rng.random())
        kind = rng.choices(kinds, weights)[0]
        is_repeated = rng.random() < profile.repeated_share
        size = rng.choice(profile.maze_sizes)
        if is_repeated:
            turn = rng.randrange(profile.num_repeated)
            picture = _repeated(profile.maze_sizes[turn % len(profile.maze_sizes)], turn)
        else:
            # Numbers of mazes that are repeated are below; another seed of the profile sends other pictures.
            picture = _picture(size, profile.num_repeated + profile.seed * 10_000_000 + number)
        return Ask(
            number=number,
            kind=kind if manner == "polite" else "stream",
            manner=manner,
            question=rng.choice(profile.questions),
            picture=picture,
            is_repeated=is_repeated,
        )

    return ask


def _manner(profile: Profile, lot: float) -> Manner:
    manners: tuple[tuple[Manner, float], ...] = (
        ("cancel", profile.cancel_share),
        ("hang_up", profile.hang_up_share),
        ("slow", profile.slow_reader_share),
    )
    for manner, share in manners:
        if lot < share:
            return manner
        lot -= share
    return "polite"


def _picture(size: int, seed: int) -> bytes:
    file = io.BytesIO()
    draw_maze(generate(size, seed).rows).save(file, "PNG")
    return file.getvalue()


_repeated = cache(_picture)
