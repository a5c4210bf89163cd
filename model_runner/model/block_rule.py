"""The rule of a block, after the sampler of either runner.

It comes after penalties and after sampling, as in the published code, and before stop checks and the client.
"""

from typing import Any


def apply_block_rule(model: Any, output: Any) -> None:
    """What was sampled inside a block becomes what the rule says, before anyone sees it.

    output: vLLM's sampler output, rows in the order of the batch. Without state, in a profiling run, nothing happens.
    Nor where no row is inside a block, if the data can be looked at: in the memory of a GPU that would be a host sync.
    """
    if model.state is None:
        return
    ids_R1, phases = output.sampled_token_ids, model.state.request_phase_R
    if phases.is_cpu and not model.state.memory.is_inside:
        return
    output.sampled_token_ids = model.decide(ids_R1, phases[: len(ids_R1), None], model.spec)
