"""The latent step's machine code for three GPU architectures: registers, shared memory, spills. Needs no GPU.

    make report-kernels
    .venv-kernels/bin/python -m benchmarks.kernel_report --out benchmarks/reports/kernels

writes ``kernels.json`` and ``kernels.md``. Every kernel that an engine would compile is compiled, for each type and
hidden size; see ``benchmarks.kernel_variants``.
"""

import argparse
import json
import platform
import subprocess
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import triton

from benchmarks.kernel_variants import ARCHITECTURES, BLOCK_SIZE, Variant, compiled, resources, serving_variants
from benchmarks.kernel_variants import tool_versions as cuda_tool_versions

ROOT = Path(__file__).resolve().parents[1]
COMMAND = "python -m benchmarks.kernel_report"
DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}
HIDDEN_SIZES = (896, 3584, 5120)  # of Qwen2.5 0.5B, 7B and 32B
NUM_REQUESTS = (1, 2, 3, 8, 16, 17, 64, 256)
SPILLS = ("spill_store_bytes", "spill_load_bytes", "stack_bytes", "local_bytes")


def title(variant: Variant) -> str:
    """``commit`` is two kernels: after a decode step it is told neither what is kept nor which tokens are last."""
    name = variant.name.removeprefix("_")
    if name == "inject":
        return name
    return f"{name} after {'decode' if variant.signature['kept'] == 'constexpr' else 'prefill'}"


def measure() -> list[dict[str, Any]]:
    rows = []
    for dtype_name, dtype in DTYPES.items():
        for hidden_size in HIDDEN_SIZES:
            for variant in serving_variants(dtype, hidden_size, NUM_REQUESTS):
                for architecture in ARCHITECTURES:
                    figures = asdict(resources(compiled(variant, architecture), architecture))
                    where = {"dtype": dtype_name, "hidden_size": hidden_size, "architecture": f"sm_{architecture}"}
                    rows.append({"kernel": title(variant), **where, **figures})
    return rows


def versions() -> dict[str, str]:
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "triton": triton.__version__,
        **cuda_tool_versions(),
    }


def commit() -> str:
    """Of the working tree; ``+`` if files of the kernels or of this report differ from it."""
    paths = ["model_runner/kernels", "benchmarks/kernel_report.py", "benchmarks/kernel_variants.py"]
    head = subprocess.run(["git", "rev-parse", "--short=12", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    is_clean = subprocess.run(["git", "diff", "--quiet", "HEAD", "--", *paths], cwd=ROOT).returncode == 0
    return head.stdout.strip() + ("" if is_clean else "+")


def as_markdown(report: dict[str, Any]) -> str:
    rows: list[dict[str, Any]] = report["rows"]
    cells: dict[tuple[str, str, int], dict[str, dict[str, Any]]] = {}
    for row in rows:
        cells.setdefault((row["kernel"], row["dtype"], row["hidden_size"]), {})[row["architecture"]] = row
    architectures = [f"sm_{one}" for one in ARCHITECTURES]
    table = [
        "| kernel | type | hidden | threads | widest access | " + " | ".join(architectures) + " |",
        "| --- | --- | ---: | ---: | ---: |" + " ---: |" * len(architectures),
    ]
    for (name, dtype, hidden_size), of in cells.items():
        first = next(iter(of.values()))
        shown = [
            f"{of[one]['registers']} / {of[one]['shared_bytes']} / {sum(of[one][spill] for spill in SPILLS)}"
            for one in architectures
        ]
        widest = f"{min(row['widest_access_bits'] for row in of.values())} bit"
        table.append(f"| {name} | {dtype} | {hidden_size} | {first['threads']} | {widest} | {' | '.join(shown)} |")
    kinds = sorted({row["kernel"] for row in rows})
    return f"""# The latent step's kernels, compiled offline

Commit {report["commit"]}. Command: `{report["command"]}` (`make report-kernels`), in the environment that
`make test-kernels` makes. No GPU; one run.
Versions: {", ".join(f"{name} {version}" for name, version in report["versions"].items())}.

An engine compiles {len(kinds)} kernels: {"; ".join(kinds)}. They are the same for
{report["num_requests"]} requests a step: how many requests or tokens a step has compiles nothing anew.
KV blocks of {report["block_size"]} tokens; ids, sequence lengths and block table int32, slots int64, as vLLM has them.

Per architecture: registers per thread / bytes of shared memory / bytes spilled, which counts spill stores and loads
(`ptxas -v`), stack and local memory (`cuobjdump --dump-resource-usage`). With up to 32 registers and no shared memory
nothing keeps a multiprocessor from holding 2,048 threads. An access of 128 bit is the widest of sm_80 and sm_90.

{chr(10).join(table)}

Not measured: time, bandwidth and occupancy reached. That the compiled kernels do what their definition says was seen on
an H100 once (`docs/gpu.md`); interpreted on a CPU they do it in each run of `make test-kernels`.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/reports/kernels")
    args = parser.parse_args()
    report = {
        "commit": commit(),
        "command": COMMAND,
        "versions": versions(),
        "num_requests": ", ".join(map(str, NUM_REQUESTS)),
        "block_size": BLOCK_SIZE,
        "rows": measure(),
    }
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.with_suffix(".json").write_text(json.dumps(report, indent=1) + "\n")
    args.out.with_suffix(".md").write_text(as_markdown(report))
    print(args.out.with_suffix(".md").read_text())


if __name__ == "__main__":
    main()
