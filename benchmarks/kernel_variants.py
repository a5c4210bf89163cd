"""Which kernels the latent step compiles for a model, and their machine code, without a GPU.

The kernels' own ``inject`` and ``commit`` are called as an engine calls them; Triton says what it would compile for
such a call, and is told not to run it. So signatures, alignments and constants are those of serving, not a copy of
them.
"""

import re
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import triton
from triton import knobs
from triton.backends.compiler import GPUTarget
from triton.backends.nvidia.compiler import get_ptxas
from triton.compiler import ASTSource
from triton.runtime import driver

from contracts.manifest import LatentSpec
from model_runner.kernels.latent_step import LatentState, kernel

ARCHITECTURES = (80, 90, 100)
WARP_SIZE = 32
BLOCK_SIZE = 16
SPEC = LatentSpec(pad_id=151665, start_id=151666, end_id=151667, size=8, rule="learned")


@dataclass(frozen=True)
class Variant:
    """A kernel with the types, constants and alignments that it is compiled for. ``key`` is Triton's, for its cache."""

    name: str
    key: str
    function: Any
    signature: dict[str, str]
    constants: dict[tuple[int, ...], Any]
    attributes: dict[tuple[int, ...], Any]
    num_warps: int


@dataclass(frozen=True)
class Resources:
    """Of the machine code, as ``cuobjdump`` and ``ptxas -v`` read it, and the widest access to memory in the PTX."""

    registers: int
    shared_bytes: int
    stack_bytes: int
    local_bytes: int
    spill_store_bytes: int
    spill_load_bytes: int
    widest_access_bits: int
    cubin_bytes: int
    threads: int


class _NoDevice:
    """As much of a driver as Triton asks before it compiles."""

    def __init__(self, target: GPUTarget) -> None:
        self.target = target

    def get_current_target(self) -> GPUTarget:
        return self.target

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0


@contextmanager
def recorded() -> Iterator[list[Variant]]:
    """Kernels that are launched inside are noted, once each, and neither compiled nor run. The process keeps the driver
    that is none: it can launch nothing afterwards."""
    variants: dict[str, Variant] = {}

    def note(*, key: str, fn: Any, compile: dict[str, Any], **rest: object) -> bool:
        name = fn.name.rsplit(".", 1)[-1]
        variants[name + key] = Variant(
            name=name,
            key=key,
            function=fn.jit_function,
            signature=compile["signature"],
            constants=compile["constants"],
            attributes=compile["configs"][0],
            num_warps=compile["num_warps"],
        )
        return True  # it is taken care of

    found: list[Variant] = []
    driver.set_active(_NoDevice(GPUTarget("cuda", ARCHITECTURES[0], WARP_SIZE)))
    knobs.runtime.jit_cache_hook = note
    try:
        yield found
    finally:
        knobs.runtime.jit_cache_hook = None
        found += variants.values()


def serving_variants(dtype: torch.dtype, hidden_size: int, num_requests: Iterable[int] = (1, 64)) -> list[Variant]:
    """inject, commit after a decode step, and commit after a prefill step of twice as many tokens."""
    most = max(num_requests, default=0)
    state = LatentState.allocate(
        num_blocks=4, block_size=BLOCK_SIZE, max_requests=most, hidden_size=hidden_size, dtype=dtype, device="cpu"
    )
    rows_TD = torch.empty(2 * most, hidden_size, dtype=dtype)
    ids_T, slots_T = torch.zeros(2 * most, dtype=torch.int32), torch.zeros(2 * most, dtype=torch.int64)
    table_RB = torch.zeros(most, 32, dtype=torch.int32)
    with recorded() as variants:
        for n in num_requests:
            phase_R = kernel.inject(ids_T[:n], rows_TD[:n], ids_T[:n], table_RB[:n], slots_T[:n], state, SPEC)
            kernel.commit(rows_TD[:n], phase_R, slots_T[:n], state)
            kept_T = torch.ones(2 * n, dtype=torch.bool)
            kernel.commit(rows_TD[: 2 * n], ids_T[: 2 * n], slots_T[: 2 * n], state, kept_T, slots_T[:n])
    return variants


def compiled(variant: Variant, architecture: int) -> Any:
    """Triton's ``CompiledKernel``, whose ``asm`` has every stage up to the cubin."""
    source = ASTSource(variant.function, variant.signature, variant.constants, variant.attributes)
    target = GPUTarget("cuda", architecture, WARP_SIZE)
    return triton.compile(source, target=target, options={"num_warps": variant.num_warps})


def resources(kernel_: Any, architecture: int) -> Resources:
    """Raises ``ValueError`` where a tool's output does not name a figure: none is made up."""
    with tempfile.TemporaryDirectory() as folder:
        cubin, ptx = Path(folder, "kernel.cubin"), Path(folder, "kernel.ptx")
        cubin.write_bytes(kernel_.asm["cubin"])
        ptx.write_text(kernel_.asm["ptx"])
        usage = _output([knobs.nvidia.cuobjdump.path, "--dump-resource-usage", str(cubin)])
        # Triton's own command, again: of what it says Triton keeps nothing.
        target = _figure(r"^\.target (\w+)", kernel_.asm["ptx"])
        ptxas = [get_ptxas(architecture).path, "-lineinfo", "-v", "--regAllocOptLevel=2", f"--gpu-name={target}"]
        log = _output([*ptxas, str(ptx), "-o", str(Path(folder, "again.cubin"))])
    accesses = re.findall(r"\b(?:ld|st)\.global(?:\.v(\d))?\.b(\d+)", kernel_.asm["ptx"])
    return Resources(
        registers=int(_figure(r"REG:(\d+)", usage)),
        shared_bytes=int(_figure(r"SHARED:(\d+)", usage)),
        stack_bytes=int(_figure(r"STACK:(\d+)", usage)),
        local_bytes=int(_figure(r"LOCAL:(\d+)", usage)),
        spill_store_bytes=int(_figure(r"(\d+) bytes spill stores", log)),
        spill_load_bytes=int(_figure(r"(\d+) bytes spill loads", log)),
        widest_access_bits=max(int(count or 1) * int(bits) for count, bits in accesses),
        cubin_bytes=len(kernel_.asm["cubin"]),
        threads=kernel_.metadata.num_warps * WARP_SIZE,
    )


def tool_versions() -> dict[str, str]:
    return {
        "ptxas": get_ptxas(ARCHITECTURES[0]).version,
        "ptxas for sm_100": get_ptxas(100).version,
        "cuobjdump": knobs.nvidia.cuobjdump.version,
    }


def _output(command: list[str]) -> str:
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return done.stdout + done.stderr


def _figure(pattern: str, text: str) -> str:
    found = re.search(pattern, text, re.MULTILINE)
    if found is None:
        raise ValueError(f"no {pattern} in: {text[:2000]}")
    return found.group(1)
