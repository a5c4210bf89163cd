"""Answers into figures: accuracy with its interval, latency, tokens and latents, in all and by group."""

import re
from collections.abc import Mapping, Sequence

from msgspec import Struct

from contracts.errors import InvalidRequest
from training.answer_log import Ablation, Answered, Entry
from training.answer_matching import MatchVersion, is_match, shown_answer
from training.samples import Sample
from training.statistics import mean, percentile, wilson_interval

OTHER = "other"  # samples without a group, where others have one


class Figures(Struct, frozen=True, kw_only=True):
    """Of some samples under one ablation.

    ``accuracy`` and ``interval_95`` (Wilson) are shares of ``num_samples``; a sample that could not be asked counts as
    wrong. Means and percentiles are over the answered ones. ``changed``: the share of samples whose answer, right or
    wrong, is another one than with latents on; None where those were not asked.
    """

    num_samples: int
    num_right: int
    accuracy: float
    interval_95: tuple[float, float]
    num_errors: int
    num_cut: int
    latency_mean_s: float
    latency_p50_s: float
    latency_p95_s: float
    output_tokens_mean: float
    latents_mean: float
    changed: float | None


class AblationResult(Struct, frozen=True, kw_only=True):
    ablation: Ablation
    total: Figures
    groups: dict[str, Figures]


def results_of(
    samples: Mapping[int, Sample],
    entries: Mapping[tuple[Ablation, int], Entry],
    ablations: Sequence[Ablation],
    version: MatchVersion,
) -> list[AblationResult]:
    """By ablation, in this order; groups in natural order, and left out if there is but one.

    Raises:
        InvalidRequest: an answer is missing, or 2026-01 is asked for and prompts are not known.
    """
    groups: dict[str, list[int]] = {}
    for index, sample in samples.items():
        groups.setdefault(sample.group or OTHER, []).append(index)
    names = sorted(groups, key=_natural) if len(groups) > 1 else []
    judged = {key: _judge(samples[key[1]], entry, version) for key, entry in entries.items() if key[1] in samples}
    missing = [(ablation, index) for ablation in ablations for index in samples if (ablation, index) not in judged]
    if missing:
        raise InvalidRequest(f"{len(missing)} answers are missing; run the same command again to go on")
    return [
        AblationResult(
            ablation=ablation,
            total=_figures(list(samples), ablation, entries, judged),
            groups={name: _figures(groups[name], ablation, entries, judged) for name in names},
        )
        for ablation in ablations
    ]


class _Judged(Struct, frozen=True):
    is_right: bool
    shown: str | None  # None: it could not be asked


def _judge(sample: Sample, entry: Entry, version: MatchVersion) -> _Judged:
    if entry.answered is None:
        return _Judged(False, None)
    text = entry.answered.whole_text if version == "2026-01" else entry.answered.text
    if text is None:
        raise InvalidRequest(
            "--match 2026-01 reads the prompt too, which a server does not tell; add --model DIR with the folder that "
            "it serves"
        )
    return _Judged(is_match(version, sample, text), shown_answer(version, sample, text))


def _figures(
    indices: Sequence[int],
    ablation: Ablation,
    entries: Mapping[tuple[Ablation, int], Entry],
    judged: Mapping[tuple[Ablation, int], _Judged],
) -> Figures:
    found = [entries[ablation, index].answered for index in indices]
    answers: list[Answered] = [answered for answered in found if answered is not None]
    num_right = sum(judged[ablation, index].is_right for index in indices)
    latencies = [answered.latency_s for answered in answers]
    return Figures(
        num_samples=len(indices),
        num_right=num_right,
        accuracy=num_right / len(indices),
        interval_95=wilson_interval(num_right, len(indices)),
        num_errors=len(indices) - len(answers),
        num_cut=sum(answered.is_cut for answered in answers),
        latency_mean_s=mean(latencies),
        latency_p50_s=percentile(latencies, 0.5),
        latency_p95_s=percentile(latencies, 0.95),
        output_tokens_mean=mean([answered.num_output_tokens for answered in answers]),
        latents_mean=mean([answered.num_latents for answered in answers]),
        changed=_changed(indices, ablation, judged),
    )


def _changed(
    indices: Sequence[int], ablation: Ablation, judged: Mapping[tuple[Ablation, int], _Judged]
) -> float | None:
    pairs = [(judged.get(("on", index)), judged[ablation, index]) for index in indices]
    shown = [(on.shown, other.shown) for on, other in pairs if on is not None]
    both = [(on, other) for on, other in shown if on is not None and other is not None]
    return sum(on != other for on, other in both) / len(both) if both else None


def _natural(name: str) -> list[tuple[int, int, str]]:
    """Numbers in a name count as numbers: 9x9 comes before 10x10. ``other`` comes last."""
    parts = re.findall(r"\d+|\D+", name)
    order = [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in parts]
    return [(2, 0, ""), *order] if name == OTHER else order
