"""vLLM's scheduler, which does not let a chunk of a prompt run over the pads of a latent block.

When a request is computed again after a preemption, or a history with latent blocks is sent, its pads need the hidden
state of the position before them. In one chunk with that position they would be replayed: one pass of the whole step
for each (``ILVRForConditionalGeneration._replay``). A pad that is the first of its chunk only reads a row, as in
decoding. So chunks end before a pad, and pads are computed one a step beside whatever else is in the batch: again at
the price of decoding them. A replay that computed only what lies after the first change would come to the same: that
is one position, the pad.

A pad that is the first of its chunk is replayed still, and not counted here, where another request of the same step
computes the position before it, as requests with the same history do on a cold cache: at most one for each request.
"""

from typing import Any

from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.core.sched.output import SchedulerOutput
from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.request import Request

from model_runner.model.keys import MAX_REPLAYED_PADS, spec_of


class _SplitsAtPads:
    """Mixin. ``MAX_REPLAYED_PADS`` in vLLM's additional_config: pads of a step that may follow another token."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        config: Any = self.vllm_config  # type: ignore[attr-defined]
        self._pad_id = spec_of(config).pad_id
        self._max_replayed_pads: int = config.additional_config[MAX_REPLAYED_PADS]
        self._num_replayed_pads = 0

    def schedule(self, *args: Any, **kwargs: Any) -> SchedulerOutput:
        self._num_replayed_pads = 0
        output: SchedulerOutput = super().schedule(*args, **kwargs)  # type: ignore[misc]
        for new in output.scheduled_new_reqs:
            # vLLM leaves out the pixels of images that lie in a cached prefix. But when the request is preempted, and
            # then neither the prefix nor the image is cached any more, Model Runner V1 has to encode the image.
            new.mm_features = self.requests[new.req_id].mm_features  # type: ignore[attr-defined]
        return output

    def _reserve_prefill_lookahead(self, request: Request, num_computed_tokens: int, num_new_tokens: int) -> int:
        """What vLLM asks of every chunk, last of all: how many of the tokens may be computed in this step."""
        num_tokens: int = super()._reserve_prefill_lookahead(  # type: ignore[misc]
            request, num_computed_tokens, num_new_tokens
        )
        if num_tokens <= 1:
            return num_tokens
        after_first = request.all_token_ids[num_computed_tokens + 1 : num_computed_tokens + num_tokens]
        room = self._max_replayed_pads - self._num_replayed_pads
        num_allowed, num_pads = allowed_tokens(after_first, self._pad_id, room)
        self._num_replayed_pads += num_pads
        # Tokens that are not known yet (an asynchronous scheduler's) come after all that are.
        return num_tokens if num_allowed == len(after_first) else 1 + num_allowed


def allowed_tokens(ids: list[int], pad_id: int, room: int) -> tuple[int, int]:
    """(how many tokens there are up to the pad after ``room`` pads, how many pads are among them)."""
    at = -1
    for num_pads in range(room + 1):
        try:
            at = ids.index(pad_id, at + 1)
        except ValueError:
            return len(ids), num_pads
    return at, room


class ILVRScheduler(_SplitsAtPads, Scheduler): ...


class AsyncILVRScheduler(_SplitsAtPads, AsyncScheduler): ...
