"""The rule of a latent block, one token at a time: slow, without phases or tensors, and obviously right.

``design``: after START each PAD is fed as the hidden state before it, at most K of them; anything else is fed as an
ordinary embedding. START opens a block wherever it comes, and what is neither START nor a latent PAD closes it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from contracts.manifest import BlockRule, LatentSpec

PAD, START, END, EOS, A, B = range(10, 16)
TOKENS = (PAD, START, END, EOS, A, B)


def make_spec(size: int = 3, rule: BlockRule = "learned") -> LatentSpec:
    return LatentSpec(pad_id=PAD, start_id=START, end_id=END, size=size, rule=rule)


@dataclass
class Block:
    """Where a sequence stands: ``pads`` of the open block, or None in text."""

    size: int
    pads: int | None = None

    def read(self, token: int) -> bool:
        """Go on by one token. Returns whether it is a latent: fed as the hidden state before it."""
        is_latent = token == PAD and self.pads is not None and self.pads < self.size
        if token == START:
            self.pads = 0
        elif is_latent:
            self.pads += 1
        else:
            self.pads = None
        return is_latent

    @property
    def phase(self) -> int:
        """As the kernels write it: 0 outside, 1 after START, 1 + n after n pads."""
        return 0 if self.pads is None else 1 + self.pads

    def decide(self, chosen: int, rule: BlockRule) -> int:
        """What the sampler's choice becomes here."""
        if self.pads is None:
            return chosen
        if rule == "learned" and chosen == START:
            return START
        if rule == "learned" and chosen == END:
            return END
        return END if self.pads == self.size else PAD


def read_all(ids: Sequence[int], size: int) -> list[tuple[bool, int]]:
    """Of each token: whether it is a latent, and the phase after it."""
    block = Block(size)
    return [(block.read(token), block.phase) for token in ids]
