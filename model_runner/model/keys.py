"""Names under which the engine hands things to the model class. Imports no vLLM, so the engine may at any time."""

from typing import Any

from contracts.manifest import LatentSpec

SPEC_KEY = "ilvr"  # in vLLM's additional_config: the fields of LatentSpec
ABLATION_KEY = "ilvr_ablation"  # in vLLM's additional_config: a LatentAblation
MAX_REPLAYED_PADS = "ilvr_max_replayed_pads"  # in vLLM's additional_config
LATENT_OFF = "ilvr_latent_off"  # in SamplingParams.extra_args
FEED_ROW = "ilvr_feed_row"  # in SamplingParams.extra_args: the numbers of a Row, where latents are ablated


def spec_of(vllm_config: Any) -> LatentSpec:
    """The block rule that the engine was started with."""
    return LatentSpec(**vllm_config.additional_config[SPEC_KEY])
