"""The latent step's machine code, made offline for each architecture: nothing here runs a kernel, or needs a GPU."""

import importlib.util
import inspect
import re
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tests.model_runner.kernels.cases import INTERPRETED

if find_spec("triton") is None or INTERPRETED:
    pytest.skip("needs triton, and not TRITON_INTERPRET: make test-kernels", allow_module_level=True)

from benchmarks.kernel_variants import (
    ARCHITECTURES,
    SPEC,
    Variant,
    compiled,
    recorded,
    resources,
    serving_variants,
)
from model_runner.kernels.latent_step import LatentState, kernel

MAX_THREADS_PER_SM = 2048
REGISTERS_PER_SM = 65536
NAMES = ["_inject", "_commit", "_commit"]


@pytest.fixture(scope="module")
def variants() -> list[Variant]:
    return serving_variants(torch.bfloat16, 896)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize(
    ("dtype", "hidden_size"), [(torch.bfloat16, 3584), (torch.float32, 4097)], ids=["bfloat16-3584", "float32-4097"]
)
def test_no_register_is_spilled(architecture: int, dtype: torch.dtype, hidden_size: int) -> None:
    """And there are few enough of them, and no shared memory, for as many threads at once as there can be."""
    variants = serving_variants(dtype, hidden_size)
    assert [variant.name for variant in variants] == NAMES
    for variant in variants:
        got = resources(compiled(variant, architecture), architecture)
        assert (got.spill_store_bytes, got.spill_load_bytes, got.stack_bytes, got.local_bytes) == (0, 0, 0, 0)
        assert got.shared_bytes == 0
        assert got.registers <= REGISTERS_PER_SM // MAX_THREADS_PER_SM
        if hidden_size % 16 == 0:
            assert got.widest_access_bits == 128  # the most that an instruction of sm_80 or sm_90 moves


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_spill_would_be_seen(architecture: int) -> None:
    """A warp that holds a row of 16 Ki elements at once has not registers enough."""
    inject = serving_variants(torch.float32, 1 << 14)[0]
    tile = list(inject.signature).index("tile")
    greedy = replace(inject, constants={**inject.constants, (tile,): 1 << 14}, num_warps=1)
    got = resources(compiled(greedy, architecture), architecture)
    assert min(got.spill_store_bytes, got.spill_load_bytes, got.stack_bytes) > 0


def test_nothing_is_compiled_while_it_serves() -> None:
    """inject, and commit after each kind of step: the same three for any number of requests and tokens."""
    alone = serving_variants(torch.bfloat16, 896, [1])
    every = serving_variants(torch.bfloat16, 896, [1, 2, 3, 8, 15, 16, 17, 32, 64, 100, 256, 1000, 1024])
    assert [variant.name for variant in every] == NAMES
    assert [variant.key for variant in every] == [variant.key for variant in alone]


class Asked(TorchDispatchMode):
    """What PyTorch is asked for, views aside: each would be a launch, or the host waiting for the device."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not func.is_view:
            self.operations.append(str(func))
        return func(*args, **(kwargs or {}))


class Counted:
    """In the place of a kernel."""

    def __init__(self, name: str, launches: list[str]) -> None:
        self._name, self._launches = name, launches

    def __getitem__(self, grid: object) -> Callable[..., None]:
        return lambda *args, **kwargs: self._launches.append(self._name)


def test_each_step_is_one_launch_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    launches: list[str] = []
    for name in ("_inject", "_commit"):
        monkeypatch.setattr(kernel, name, Counted(name, launches))
    state = LatentState.allocate(
        num_blocks=2, block_size=16, max_requests=4, hidden_size=64, dtype=torch.bfloat16, device="cpu"
    )
    ids_T, slots_T, rows_TD = torch.zeros(8).int(), torch.zeros(8).long(), torch.zeros(8, 64).bfloat16()
    table_RB, kept_T = torch.zeros(4, 3).int(), torch.ones(8).bool()
    with Asked() as asked:
        phase_R = kernel.inject(ids_T[:4], rows_TD[:4], ids_T[:4], table_RB, slots_T[:4], state, SPEC)
        kernel.commit(rows_TD[:4], phase_R, slots_T[:4], state)
        kernel.commit(rows_TD, ids_T, slots_T, state, kept_T, slots_T[:4])
        assert launches == NAMES
        assert asked.operations == []
        slots_T.any().item()
    assert len(asked.operations) == 2  # a sync would be seen


def inject_at(offset: int, rows_offset: int = 0) -> None:
    """inject of 2 requests, whose numbers (and rows) begin that many elements into their buffers."""
    state = LatentState.allocate(
        num_blocks=2, block_size=16, max_requests=2, hidden_size=64, dtype=torch.bfloat16, device="cpu"
    )
    ids_R, slots_R = torch.zeros(2 + offset, dtype=torch.int32), torch.zeros(2 + offset, dtype=torch.int64)
    embeds_RD = torch.zeros(rows_offset + 128, dtype=torch.bfloat16)[rows_offset:].view(2, 64)
    table_RB = torch.zeros(2, 3 + offset, dtype=torch.int32)
    kernel.inject(ids_R[offset:], embeds_RD, ids_R[offset:], table_RB[:, offset:], slots_R[offset:], state, SPEC)


def test_nor_for_numbers_that_lie_elsewhere_but_for_rows_that_do() -> None:
    with recorded() as variants:
        for offset in (0, 1, 2, 3, 4):
            inject_at(offset)
    assert len(variants) == 1
    with recorded() as variants:
        inject_at(0)
        inject_at(0, rows_offset=1)  # its rows can only be read two bytes at a time
    assert len(variants) == 2


def narrow_arithmetic(variant: Variant) -> list[str]:
    """What is multiplied in 32 bits in Triton's IR, a program's tile aside, and the pointers that are offset by 32."""
    ir = compiled(variant, ARCHITECTURES[0]).asm["ttir"]
    products = re.findall(r"arith\.muli (%\w+), (%\w+) : i32", ir)
    tile = list(variant.signature).index("tile")
    found = [one for one, two in products if two != f"%c{variant.constants[(tile,)]}_i32"]
    base_of = dict(re.findall(r"(%\w+) = tt\.addptr (%\w+),", ir))
    for pointer in re.findall(r"tt\.addptr (%\w+), %\w+ : !tt\.ptr<\w+>, i32", ir):
        while pointer in base_of:
            pointer = base_of[pointer]
        found.append(pointer)  # the argument that it began as
    return found


def test_offsets_have_64_bits(variants: list[Variant]) -> None:
    """KV blocks x hidden size, and requests x strides, can pass 2^31. What stays narrow: the column of a tile, and how
    far into a request's row of the block table its block is."""
    assert [narrow_arithmetic(variant) for variant in variants] == [["%table"], [], []]


@pytest.mark.parametrize("wide", ["tl.program_id(0).to(tl.int64)", "other=-1).to(tl.int64)"])
def test_narrow_offsets_would_be_seen(
    variants: list[Variant], wide: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    narrow = mutant(wide, wide.replace("tl.int64", "tl.int32"), tmp_path)
    monkeypatch.setattr(kernel, "_inject", narrow._inject)
    monkeypatch.setattr(kernel, "_commit", narrow._commit)
    found = [narrow_arithmetic(variant) for variant in serving_variants(torch.bfloat16, 896)]
    assert found != [narrow_arithmetic(variant) for variant in variants]
    assert any(found[1:])


def mutant(old: str, new: str, folder: Path) -> ModuleType:
    """The kernels with a change in their source, which Triton reads from a file."""
    source = inspect.getsource(kernel)
    assert old in source
    path = folder / "mutant.py"
    path.write_text(source.replace(old, new))
    spec = importlib.util.spec_from_file_location("mutant", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
