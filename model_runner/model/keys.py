"""Names under which the engine hands things to the model class. Imports nothing, so the engine may."""

SPEC_KEY = "ilvr"  # in vLLM's additional_config: the fields of LatentSpec
LATENT_OFF = "ilvr_latent_off"  # in SamplingParams.extra_args
