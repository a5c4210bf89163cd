"""How long samples are, without decoding their pictures, and which are too long to train on."""

from collections.abc import Sequence
from dataclasses import dataclass

from contracts.errors import InvalidRequest
from training.encoding import Encoder
from training.sample_pictures import count_visual_tokens
from training.samples import LatentStep, Sample

# Of samples that are left out, so many are named.
MAX_NAMED = 5


@dataclass(frozen=True, slots=True)
class Fitting:
    """Samples that fit, and a line about those that do not: None if there are none."""

    samples: list[Sample]
    warning: str | None


def sample_length(encoder: Encoder, sample: Sample) -> int:
    """Tokens that ``encoder.encode`` would give. Of each picture only the header is read.

    Raises:
        InvalidRequest: a picture cannot be read, or is too long and thin.
    """
    ids = encoder.tokenizer.encode(encoder.text(sample), add_special_tokens=False).ids
    return len(ids) + sum(count_visual_tokens(encoder.processor, path, sample.where) - 1 for path in sample.images)


def fitting(
    encoder: Encoder, samples: Sequence[Sample], max_length: int, *, is_error: bool, with_helpers: bool
) -> Fitting:
    """Leave out samples of more than ``max_length`` tokens; a sample is never cut, since the cut would take its answer.

    with_helpers: look at the headers of helper images too, though they add no tokens, since a teacher will open them.

    Raises:
        InvalidRequest: one is too long and ``is_error``, none is left, or a picture cannot be used.
    """
    kept, long = [], []
    for sample in samples:
        length = sample_length(encoder, sample)
        for step in sample.steps if with_helpers else ():
            if isinstance(step, LatentStep):
                count_visual_tokens(encoder.processor, step.helper_image, sample.where)
        if length <= max_length:
            kept.append(sample)
        else:
            long.append(f"{sample.where} ({length} tokens)")
    named = ", ".join(long[:MAX_NAMED]) + (f" and {len(long) - MAX_NAMED} more" if len(long) > MAX_NAMED else "")
    if long and (is_error or not kept):
        raise InvalidRequest(
            f"longer than max_length {max_length}: {named}; shorten or remove them, or raise max_length"
        )
    warning = f"left out {len(long)} of {len(samples)} samples, longer than max_length {max_length}: {named}"
    return Fitting(kept, warning if long else None)
