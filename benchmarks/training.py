"""Samples a second and peak memory of stage 1 and stage 2, beside the naive forms of the released code.

    python -m benchmarks.training --out benchmarks/results/training-cpu

What the naive forms do, and what is known of the released code, stands in ``benchmarks.naive_training``; model and
sample in ``benchmarks.training_model``. All forms compute on the same weights and the same sample, in float32 on the
CPU, and take turns within every repetition, so that a machine that slows down slows all of them; a ratio is taken
within a repetition. With one thread the time is the processor's, which other work on the machine disturbs least. Before
anything is measured all forms of a stage must give the same loss and the same targets. Peak memory is that of a fresh
process for each form, above what it held with model and sample ready (Linux with glibc).
"""

import argparse
import contextlib
import ctypes
import gc
import json
import os
import platform
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import transformers

from benchmarks.training_forms import CACHED, EMA, FORMS, NAIVE, OURS, Form, prepare
from benchmarks.training_model import Setting, build, proportions

ROOT = Path(__file__).resolve().parents[1]
MIB = 1 << 20
# Relative; float32 sums in another order differ by 1e-6.
LOSS_BOUND = 1e-4
WARM_UP = Setting(layers=1, hidden=64, image_tokens=4, text_tokens=20, blocks=1)
# Times as fast as the naive form that the project asks of itself.
BARS = {(1, EMA): 2.0, (1, CACHED): 2.0, (2, OURS): 5.0}


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One form. ratios: how many times as fast as the naive form, in each repetition."""

    form: Form
    seconds: list[float]
    ratios: list[float]
    peak_mib: float


def check_agreement(setting: Setting) -> None:
    """The loss of every form against the naive form of its stage, and the targets of stage 1.

    Raises:
        SystemExit: they differ, so that a comparison of speed would mean nothing.
    """
    for form in FORMS:
        naive = prepare(Form(stage=form.stage, by=NAIVE, recomputed=form.recomputed), setting)
        ours = prepare(form, setting)
        expected, got = naive.run(), ours.run()
        if not abs(got - expected) <= LOSS_BOUND * abs(expected):
            raise SystemExit(f"not measured: {form.name} gives a loss of {got}, the naive form {expected}")
        wanted, found = naive.targets(), ours.targets()
        if wanted is not None and (found is None or found.chosen != wanted.chosen):
            raise SystemExit(f"not measured: {form.name} selects other targets than the naive form")


def measure(setting: Setting, repetitions: int) -> list[Result]:
    """Seconds of every form, after one pass of each that does not count; memory in processes of their own."""
    clock = _clock()
    passes = [(form, prepare(form, setting)) for form in FORMS]
    seconds: dict[Form, list[float]] = {form: [] for form in FORMS}
    for repetition in range(repetitions + 1):
        for form, one in passes:
            started_s = clock()
            one.run()
            if repetition > 0:
                seconds[form].append(clock() - started_s)
    del passes
    results = []
    for form in FORMS:
        naive_s = seconds[Form(stage=form.stage, by=NAIVE, recomputed=form.recomputed)]
        ratios = [naive / ours for naive, ours in zip(naive_s, seconds[form], strict=True)]
        results.append(
            Result(form=form, seconds=seconds[form], ratios=ratios, peak_mib=_peak_in_fresh_process(form, setting))
        )
    return results


def peak_bytes(form: Form, setting: Setting) -> int:
    """What one pass adds to the resident memory of this process, at its highest. Call it once in a process."""
    prepare(form, WARM_UP).run()  # what libraries load and keep at their first use is not the form's
    one = prepare(form, setting)
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # what was freed and kept for later would be used again, unseen
    # Makes the highest so far that of now. Not ru_maxrss: that begins with the memory of the process that started this.
    Path("/proc/self/clear_refs").write_text("5")
    resting = _highest_resident_bytes()
    one.run()
    return _highest_resident_bytes() - resting


def _highest_resident_bytes() -> int:
    status = Path("/proc/self/status").read_text()
    return 1024 * next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:"))


def _peak_in_fresh_process(form: Form, setting: Setting) -> float:
    command = [sys.executable, "-m", "benchmarks.training", "--only", str(FORMS.index(form))]
    for name, value in asdict(setting).items():
        command += [f"--{name.replace('_', '-')}", str(value)]
    command += ["--threads", str(torch.get_num_threads())]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1]) / MIB


def environment(command: str) -> dict[str, Any]:
    """What a number means nothing without."""
    changed = _git("status", "--porcelain", "--", *_files_of_this_run())
    return {
        "command": command,
        "commit": (_git("rev-parse", "HEAD") or "unknown") + (" with changes" if changed else ""),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load_at_start": [round(load, 1) for load in os.getloadavg()],
        "clock": _clock().__name__,
        "dtype": "float32",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


def table(results: Sequence[Result]) -> str:
    """Markdown; median and range over the repetitions."""
    lines = [
        "| stage | activations | form | samples/s | times as fast as naive | bar | peak memory, MiB |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for one in results:
        form, bar = one.form, BARS.get((one.form.stage, one.form.by))
        ratio = statistics.median(one.ratios)
        verdict = "" if bar is None else f"{bar:g}: {'met' if ratio >= bar else 'missed'}"
        times = "1" if form.by == NAIVE else f"{ratio:.2f} ({min(one.ratios):.2f}–{max(one.ratios):.2f})"
        rates = [1 / seconds for seconds in one.seconds]
        lines.append(
            f"| {form.stage} | {'recomputed' if form.recomputed else 'kept'} | {form.by} "
            f"| {statistics.median(rates):.3f} ({min(rates):.3f}–{max(rates):.3f}) | {times} | {verdict} "
            f"| {one.peak_mib:.0f} |"
        )
    return "\n".join(lines)


def report(setting: Setting, results: Sequence[Result], found: dict[str, Any], model: dict[str, Any]) -> str:
    """The Markdown page."""
    return "\n".join(
        [
            "# Speed of a training pass against the naive forms of the released code",
            "",
            f"`{found['command']}`",
            "",
            f"Commit {found['commit']}. {found['processor']}, {found['cores']} cores of which {found['threads']} used, "
            f"load at the start {found['load_at_start'][0]} (other work shared the machine if that is more than 0), "
            f"timed by {found['clock']}. "
            f"Python {found['python']}, torch {found['torch']}, transformers {found['transformers']}, float32.",
            "",
            f"Model: {setting.layers} layers of width {setting.hidden}, {model['parameters']:,} parameters; a token of "
            f"the decoder's layers is 1, the head {model['head']:.2f} (0.08 at 7B), the tower for a visual token "
            f"{model['tower']:.2f} (0.40 at 7B). Sample: {model['tokens']} tokens, of which {setting.image_tokens} of "
            f"an image and {setting.blocks} blocks of 8 latents, each with a helper image of {setting.image_tokens} "
            "visual tokens. Forward and backward pass at batch 1, without the optimizer's step.",
            "",
            f"Median and range of {len(results[0].seconds)} repetitions in which all forms took turns. Every form gave "
            "the naive form's loss and targets. *Recomputed* activations are the released setting. *EMA teacher* makes "
            "targets at every step, as the paper says; *cached targets* are those of a teacher that never moves, as "
            "that of the released code in truth, computed once for all epochs: this is the training that the "
            f"naive form does. With a teacher that moves one of its {setting.blocks + 1} passes is left beside the "
            "student's, so that about twice as fast is what can be had.",
            "",
            table(results),
            "",
            "Not measured: a GPU, other widths, several processes.",
            "",
        ]
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Check, measure, print the page, write it and the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in asdict(Setting()).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=value, help="(default %(default)s)")
    parser.add_argument("--repetitions", type=int, default=7, help="that count (default %(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="of torch (default %(default)s)")
    parser.add_argument("--out", type=Path, help="write OUT.json and OUT.md")
    parser.add_argument("--only", type=int, help=argparse.SUPPRESS)  # print the peak memory of this form, and end
    args = parser.parse_args(argv)
    if args.hidden < 64 or args.hidden % 64:
        parser.error("--hidden must be a multiple of 64")
    if min(args.layers, args.image_tokens, args.text_tokens, args.blocks, args.repetitions, args.threads) < 1:
        parser.error("all numbers must be 1 or more")
    setting = Setting(**{name: getattr(args, name) for name in asdict(Setting())})
    torch.set_num_threads(args.threads)
    if args.only is not None:
        print(peak_bytes(FORMS[args.only], setting))
        return 0
    words = sys.argv[1:] if argv is None else argv
    found = environment(" ".join(["python -m benchmarks.training", *words]))
    model = build(setting)
    described = {
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "tokens": prepare(FORMS[0], setting).num_tokens,
        **proportions(model),
    }
    del model
    check_agreement(setting)
    results = measure(setting, args.repetitions)
    page = report(setting, results, found, described)
    print(page)
    if args.out is not None:
        content = {
            "environment": found,
            "setting": asdict(setting),
            "model": described,
            "results": [asdict(result) for result in results],
        }
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.with_suffix(".json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        args.out.with_suffix(".md").write_text(page, encoding="utf-8")
    return 0


def _clock() -> Callable[[], float]:
    """Processor time of all threads together means nothing, of one it does."""
    return time.process_time if torch.get_num_threads() == 1 else time.perf_counter


def _files_of_this_run() -> list[str]:
    """Modules of this project that are loaded, other than installed ones."""
    files = [Path(file) for one in list(sys.modules.values()) if (file := getattr(one, "__file__", None))]
    return [str(file) for file in files if any(file.is_relative_to(ROOT / name) for name in ("training", "benchmarks"))]


def _git(*arguments: str) -> str:
    with contextlib.suppress(OSError):
        return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()
    return ""


def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    sys.exit(main())
