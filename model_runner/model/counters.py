"""What the model class counts, read by the runner over ``collective_rpc``, and a trace of latents for tests."""

from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass
class LatentCounters:
    """Counts since the engine started.

    encoder_cache_hits: images of new requests whose features, or the KV cache of whose tokens, were there already.
    replays: steps that computed a pad together with the token before it. replayed_pads: such pads. replay_passes: runs
    of the language model beyond the ordinary one of the step. replayed_tokens: tokens computed in those passes.
    """

    images_encoded: int = 0
    encoder_cache_hits: int = 0
    replays: int = 0
    replayed_pads: int = 0
    replay_passes: int = 0
    replayed_tokens: int = 0
    is_tracing: bool = False
    trace: list[tuple[Tensor, Tensor]] = field(default_factory=list)

    def count_replay(self, *, num_pads: int, num_passes: int, num_tokens: int) -> None:
        """Of one step; ``num_tokens`` are computed in each pass."""
        self.replays += num_pads > 0
        self.replayed_pads += num_pads
        self.replay_passes += num_passes
        self.replayed_tokens += num_passes * num_tokens

    def as_dict(self) -> dict[str, int]:
        names = ("images_encoded", "encoder_cache_hits", "replays", "replayed_pads", "replay_passes", "replayed_tokens")
        return {name: int(getattr(self, name)) for name in names}

    def trace_decode(self, is_pad_R: Tensor, phase_R: Tensor, seq_lens_R: Tensor, embeds_RD: Tensor) -> None:
        """Keep (positions, fed-back vectors) of the latent rows. Synchronises: for tests and analysis only."""
        self._keep(is_pad_R & (phase_R > 1), seq_lens_R - 1, embeds_RD)

    def trace_prefill(self, inner_T: Tensor, positions_T: Tensor, embeds_TD: Tensor) -> None:
        self._keep(inner_T, positions_T, embeds_TD[: inner_T.shape[0]])

    def _keep(self, rows: Tensor, positions: Tensor, embeds: Tensor) -> None:
        self.trace.append((positions[rows].clone(), embeds[rows].clone()))

    def take_vectors(self) -> dict[int, Tensor]:
        """Vectors by position since tracing began, and begin anew; of a position fed twice, the last. One request."""
        trace, self.trace = self.trace, []
        pairs = ((positions.tolist(), vectors) for positions, vectors in trace)
        return {at: vector for positions, vectors in pairs for at, vector in zip(positions, vectors, strict=True)}

    def take_trace(self) -> tuple[list[int], list[list[float]]]:
        """Positions and vectors since tracing began, and begin anew."""
        trace, self.trace = self.trace, []
        if not trace:
            return [], []
        positions = torch.cat([positions for positions, _ in trace])
        vectors = torch.cat([vectors for _, vectors in trace])
        return positions.tolist(), vectors.float().tolist()
