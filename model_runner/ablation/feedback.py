"""The vectors that are fed back instead of the own hidden states. Plain tensor operations, for both engines.

They are functions of the request's row of numbers, the position in the sequence and the phase, and of the own hidden
state: not of the batch, of the step, or of what was computed before. So a request that is computed in chunks, or again
after it was preempted, is fed the same vectors. Nothing here looks at data, so a decode step keeps its shape.

Shape letters: T tokens, D hidden size, N donor blocks, K latents in a block.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import pi

import torch
from torch import Tensor
from torch.linalg import vector_norm

from model_runner.settings import LatentAblation

BITS_32 = 2**32 - 1
GOLDEN_RATIO = 0x9E3779B9  # 2**32 / phi: keeps 0 from being hashed to 0


@dataclass
class DonorBank:
    """Latent blocks of other samples. ``vectors_NKD`` is allocated once and filled before the first request."""

    vectors_NKD: Tensor
    num_blocks: int = 0

    @classmethod
    def allocate(cls, *, capacity: int, size: int, hidden_size: int, dtype: torch.dtype, device: str) -> "DonorBank":
        """Room for ``capacity`` blocks of ``size`` (K) latents."""
        return cls(torch.zeros(capacity, size, hidden_size, dtype=dtype, device=device))

    def add(self, vectors: Mapping[int, Tensor], blocks: Sequence[Sequence[int]]) -> int:
        """Keep the blocks of a sample, of which there is room for; returns how many.

        vectors: by position in the sequence, [D]. blocks: the positions of each block's pads. A block that ended
        before it had K latents is repeated from its beginning.
        """
        size = self.vectors_NKD.shape[1]
        kept = [block for block in blocks if block][: self.vectors_NKD.shape[0] - self.num_blocks]
        for block in kept:
            own_KD = torch.stack([vectors[block[step % len(block)]] for step in range(size)])
            self.vectors_NKD[self.num_blocks] = own_KD
            self.num_blocks += 1
        return len(kept)


@dataclass(frozen=True)
class Feedback:
    """Feeds in one mode. ``bank`` is only looked at by ``swap``."""

    mode: LatentAblation
    bank: DonorBank

    def feed(self, own_TD: Tensor, positions_T: Tensor, phase_T: Tensor, rows_T3: Tensor) -> Tensor:
        """What is fed at each token if it is a pad inside a block: [T, D], dtype of ``own_TD``.

        own_TD: the hidden state of the position before. phase_T: 1 + n at the n-th pad of a block; where it is less,
        the result means nothing. rows_T3: the :data:`~model_runner.ablation.donors.Row` of each token's request.
        """
        if self.mode == "zero":
            return torch.zeros_like(own_TD)
        seed_T = rows_T3[:, 0]
        if self.mode == "noise":
            return noise(own_TD, seed_T, positions_T)
        if self.mode == "swap":
            return swapped(own_TD, positions_T, phase_T, rows_T3, self.bank.vectors_NKD)
        return own_TD


def noise(own_TD: Tensor, seed_T: Tensor, positions_T: Tensor) -> Tensor:
    """|own| g / |g|, with g a vector of independent normal deviates that seed and position determine.

    In float64, so that rounding to the model's dtype hides in which order a sum was taken.
    """
    normal_TD = standard_normal(seed_T, positions_T, own_TD.shape[1])
    length_T1: Tensor = vector_norm(own_TD.double(), dim=1, keepdim=True)
    normal_length_T1: Tensor = vector_norm(normal_TD, dim=1, keepdim=True)
    return (normal_TD * (length_T1 / normal_length_T1)).to(own_TD.dtype)


def standard_normal(seed_T: Tensor, positions_T: Tensor, num: int) -> Tensor:
    """[T, num] float64, by Box and Muller (1958): sqrt(-2 ln u) cos(2 pi v)."""
    index = torch.arange(2 * num, device=seed_T.device)
    bits_TX = _hash(_hash_of_place(seed_T, positions_T)[:, None], index)
    uniform_TX = (bits_TX.double() + 0.5) / 2.0**32
    radius_TD = (-2 * uniform_TX[:, :num].log()).sqrt()
    return radius_TD * (2 * pi * uniform_TX[:, num:]).cos()


def swapped(own_TD: Tensor, positions_T: Tensor, phase_T: Tensor, rows_T3: Tensor, bank_NKD: Tensor) -> Tensor:
    """The donor's latent of the same number in the block; the own one where a request has no donor (blocks: 0).

    Which of the donor's blocks it is depends on the seed and on where this block began.
    """
    seed_T, first_T, count_T = rows_T3.unbind(1)
    step_T = (phase_T.long() - 2).clamp(0, bank_NKD.shape[1] - 1)
    start_T = positions_T.long() - 1 - step_T
    block_T = first_T + _hash_of_place(seed_T, start_T) % count_T.clamp(min=1)
    return torch.where((count_T > 0)[:, None], bank_NKD[block_T, step_T], own_TD)


def _hash_of_place(seed_T: Tensor, positions_T: Tensor) -> Tensor:
    return _hash(seed_T & BITS_32, seed_T >> 32, positions_T.long() & BITS_32)


def _hash(*words: Tensor) -> Tensor:
    """32 bits of words of 32 bits each, all in int64; broadcasts."""
    state = torch.zeros((), dtype=torch.int64, device=words[0].device)
    for word in words:
        state = _mix(((state ^ word) + GOLDEN_RATIO) & BITS_32)
    return state


def _mix(bits: Tensor) -> Tensor:
    """A bijection of 32 bits in which every bit depends on every other (T. Mueller, stackoverflow.com/a/12996028).

    The product of 32 bits with a constant below 2**27 does not overflow int64.
    """
    bits = ((bits >> 16) ^ bits) * 0x45D9F3B & BITS_32
    bits = ((bits >> 16) ^ bits) * 0x45D9F3B & BITS_32
    return (bits >> 16) ^ bits
