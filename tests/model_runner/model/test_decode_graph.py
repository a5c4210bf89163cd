"""What a CUDA graph asks of the decode path, shown without a GPU: one graph, no look at the data, fixed addresses.

A captured graph runs no Python. Whatever Python decides by what a tensor holds is decided once, at the capture, and is
wrong ever after, without an error.
"""

import dataclasses
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from typing import Any

import pytest
import torch
from msgspec.structs import replace as changed
from torch import Tensor
from torch._dynamo.exc import TorchDynamoException
from torch.fx.experimental.symbolic_shapes import free_unbacked_symbols
from torch.utils._python_dispatch import TorchDispatchMode
from vllm.forward_context import get_forward_context, set_forward_context
from vllm.model_executor.layers.attention import Attention

from model_runner.ablation.feedback import DonorBank, Feedback
from model_runner.kernels.latent_step import LatentState, decide, latent_step
from model_runner.settings import LatentAblation
from tests.model_runner.model.conftest import add_in_a_block
from tests.parity.stepper import Stepper

NUM_REQUESTS = 3
NUM_STEPS = 1000
# Copies that wait for the device; of a tensor that is on the host already they are nothing, so only a graph shows them.
TO_THE_HOST = ("cpu", "numpy", "tolist")


def tensors_of(state: LatentState) -> list[Tensor]:
    return [value for field in fields(state) if isinstance(value := getattr(state, field.name), Tensor)]


class DecodeStep:
    """A step of three latent rows that the engine made, to be made again and again from the same state."""

    def __init__(self, stepper: Stepper) -> None:
        self.model, self.config = stepper.model, stepper.worker.vllm_config
        self.state: LatentState = stepper.model.state
        stepper.start_over()
        for n in range(NUM_REQUESTS):
            add_in_a_block(stepper, f"graph-{n}", max_tokens=4)
        for _ in range(3):  # START is read, then two pads are computed: the second, from what the first committed
            self.model.decode = self._keep  # on the instance, before the method of its class
            stepper.step()
            del self.model.decode
        stepper.run()

    def _keep(self, *arguments: Any) -> Tensor:
        context = get_forward_context()
        self.context = {"attn_metadata": context.attn_metadata, "slot_mapping": context.slot_mapping}
        self.arguments = [one.clone() for one in arguments[:-1]]
        self.before = [one.clone() for one in tensors_of(self.state)]
        hidden_TD: Tensor = type(self.model).decode(self.model, *arguments)
        return hidden_TD

    def all_of_it(self, ids_T: Tensor, positions: Tensor, embeds_TD: Tensor, *attention: Tensor) -> tuple[Tensor, ...]:
        """Everything that is computed for one token per request, to the token that the scheduler hears of."""
        hidden_TD = self.model.decode(ids_T, positions, embeds_TD, *attention, self.state)
        logits_RV = self.model.compute_logits(hidden_TD)
        phase_R = self.state.request_phase_R[: ids_T.shape[0]]
        return hidden_TD, logits_RV, decide(logits_RV.argmax(-1), phase_R, self.model.spec)

    @torch.inference_mode()
    def made_by(self, function: Callable[..., tuple[Tensor, ...]]) -> list[Tensor]:
        """What a function like :meth:`all_of_it` gives, and the state that it leaves."""
        for tensor, before in zip(tensors_of(self.state), self.before, strict=True):
            tensor.copy_(before)
        arguments = [one.clone() for one in self.arguments]
        with set_forward_context(vllm_config=self.config, **self.context):
            return [*function(*arguments), *(one.clone() for one in tensors_of(self.state))]


@pytest.fixture(scope="module")
def decode_step(maze_stepper: Stepper) -> DecodeStep:
    return DecodeStep(maze_stepper)


@contextmanager
def as_on_a_gpu(model: Any, rule: str) -> Iterator[None]:
    """The definition of the latent step, and vLLM's own modules: what a CPU takes in their place, and skipping known
    rows, look at the data."""
    for_a_cpu = [(module, vars(module).pop("forward")) for module in model.modules() if "forward" in vars(module)]
    attention = [module for module in model.modules() if isinstance(module, Attention)]
    for module in attention:
        module.use_direct_call = False
    spec, model.spec, model.skips_known_rows = model.spec, changed(model.spec, rule=rule), False
    model.inject, model.commit, model.decide, model.mask_logits = latent_step("reference")
    try:
        yield
    finally:
        model.spec, model.skips_known_rows = spec, True
        model.inject, model.commit, model.decide, model.mask_logits = latent_step("host")
        for module, forward in for_a_cpu:
            module.forward = forward
        for module in attention:
            module.use_direct_call = True


def as_one_graph(function: Callable[..., Any]) -> tuple[Callable[..., Any], list[torch.fx.GraphModule]]:
    """The function, traced when it is called, as one graph or not at all, and the list that its graph comes to."""
    torch._dynamo.reset()
    graphs: list[torch.fx.GraphModule] = []

    def backend(graph: torch.fx.GraphModule, _: Any) -> Callable[..., Any]:
        graphs.append(graph)
        return graph.forward

    return torch.compile(function, fullgraph=True, backend=backend, dynamic=False), graphs


def looks_at_data(graph: torch.fx.GraphModule) -> bool:
    """Whether a number or a shape in it is known only from what tensors hold: tracing lets it through as a symbol, a
    graph that is replayed cannot."""
    return any(
        free_unbacked_symbols(node.meta.get("example_value"))
        or (node.op == "call_method" and (node.target in TO_THE_HOST or (node.target == "to" and names_a_device(node))))
        for node in graph.graph.nodes
    )


def names_a_device(node: torch.fx.Node) -> bool:
    return any(isinstance(value, str | torch.device) for value in (*node.args, *node.kwargs.values()))


class Looks(TorchDispatchMode):
    """``names`` are the operations that were asked what a tensor holds: on a GPU each waits for the device."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = function._schema.name.removeprefix("aten::")
        if name in ("_local_scalar_dense", "item", "is_nonzero", "nonzero", "masked_select", "_unique2"):
            self.names.append(name)
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("rule", ["learned", "fixed"])
def test_the_whole_decode_path_is_one_graph(decode_step: DecodeStep, rule: str) -> None:
    """Inject, language model, commit, logits with their masks and the rule of the block: traced, they do the same."""
    with as_on_a_gpu(decode_step.model, rule):
        expected = decode_step.made_by(decode_step.all_of_it)
        compiled, graphs = as_one_graph(decode_step.all_of_it)
        got = decode_step.made_by(compiled)
    assert len(graphs) == 1
    assert not looks_at_data(graphs[0])
    for ours, theirs in zip(got, expected, strict=True):
        assert torch.equal(ours, theirs)
    chosen_R = got[2]
    assert chosen_R.tolist() == [decode_step.model.spec.pad_id] * NUM_REQUESTS
    phase_R = decode_step.state.request_phase_R[:NUM_REQUESTS]
    assert phase_R.tolist() == [3] * NUM_REQUESTS  # two pads read
    assert any(not torch.equal(before, after) for before, after in zip(decode_step.before, got[3:], strict=True))


def looked_at(decode_step: DecodeStep) -> list[str]:
    """By the whole of ``forward``, which a full graph captures: what chooses the decode path, and the path."""
    model = decode_step.model
    with as_on_a_gpu(model, "learned"), Looks() as looks:
        ids_T, positions, embeds_TD = (one.clone() for one in decode_step.arguments[:3])
        with torch.inference_mode(), set_forward_context(vllm_config=decode_step.config, **decode_step.context):
            model.forward(ids_T, positions, None, embeds_TD)
    return looks.names


def test_what_leads_to_the_decode_path_looks_at_no_data(
    decode_step: DecodeStep, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = decode_step.model
    assert not model.has_newcomers
    assert looked_at(decode_step) == []
    decode = type(model).decode

    def faulty(ids_T: Tensor, *rest: Any) -> Tensor:
        if (ids_T == model.spec.pad_id).any():
            hidden_TD: Tensor = decode(model, ids_T, *rest)
        return hidden_TD

    monkeypatch.setattr(model, "decode", faulty, raising=False)
    assert looked_at(decode_step) != []


@pytest.mark.parametrize("mode", ["zero", "noise", "swap"])
def test_so_it_is_with_other_latents(decode_step: DecodeStep, mode: LatentAblation) -> None:
    model, width = decode_step.model, decode_step.arguments[2].shape[1]
    bank = DonorBank.allocate(capacity=1, size=model.spec.size, hidden_size=width, dtype=torch.float32, device="cpu")
    assert bank.add({0: torch.ones(width)}, [[0]]) == 1
    rows_R3 = torch.tensor([[seed, 0, 1] for seed in range(NUM_REQUESTS)])  # one donor block, the first
    with as_on_a_gpu(model, "learned"):
        own = decode_step.made_by(decode_step.all_of_it)
        model.ablate(Feedback(mode, bank), rows_R3)
        try:
            expected = decode_step.made_by(decode_step.all_of_it)
            compiled, graphs = as_one_graph(decode_step.all_of_it)
            got = decode_step.made_by(compiled)
        finally:
            model.feedback = None
    assert len(graphs) == 1
    assert not looks_at_data(graphs[0])
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(got, expected, strict=True))
    assert not torch.equal(own[0], expected[0])


def one_slot_more(context: dict[str, Any]) -> dict[str, Any]:
    """What attention writes to: nowhere."""

    def wider(slots_T: Tensor) -> Tensor:
        return torch.cat([slots_T, slots_T.new_full((1,), -1)])

    metadata = {
        key: dataclasses.replace(one, slot_mapping=wider(one.slot_mapping))
        for key, one in context["attn_metadata"].items()
    }
    return {
        "attn_metadata": metadata,
        "slot_mapping": {key: wider(one) for key, one in context["slot_mapping"].items()},
    }


def test_tokens_that_pad_the_step_belong_to_no_request(
    decode_step: DecodeStep, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where vLLM pads tokens to the size of a graph, but not requests: they change nothing."""

    def padded(ids_T: Tensor, positions: Tensor, embeds_TD: Tensor, *attention: Tensor) -> tuple[Tensor, ...]:
        seq_lens_R, table_RB, slots_T = attention
        wide = (
            torch.cat([ids_T, ids_T[:1]]),
            torch.cat([positions, positions[..., :1]], dim=-1),
            torch.cat([embeds_TD, embeds_TD[:1]]),
            seq_lens_R,
            table_RB,
            torch.cat([slots_T, slots_T.new_full((1,), -1)]),
        )
        hidden_TD = decode_step.model.decode(*wide, decode_step.state)
        return (hidden_TD[:NUM_REQUESTS],)

    with as_on_a_gpu(decode_step.model, "learned"):
        expected = decode_step.made_by(decode_step.all_of_it)
        compiled, graphs = as_one_graph(padded)
        monkeypatch.setattr(decode_step, "context", one_slot_more(decode_step.context))
        got = decode_step.made_by(compiled)
    assert len(graphs) == 1
    assert not looks_at_data(graphs[0])
    torch.testing.assert_close(got[0], expected[0])
    for ours, theirs in zip(got[1:], expected[3:], strict=True):
        torch.testing.assert_close(ours, theirs)


def host_sync(phase_R: Tensor) -> None:
    phase_R.sub_(0 * phase_R.max().item())


def branch(phase_R: Tensor) -> None:
    if (phase_R > 0).any():
        phase_R.add_(0)


def shape_of_the_data(phase_R: Tensor) -> None:
    phase_R.add_(0 * phase_R[phase_R > 1].sum())


def copy_to_the_host(phase_R: Tensor) -> None:
    phase_R.add_(0 * phase_R.cpu())


def moved_to_the_host(phase_R: Tensor) -> None:
    phase_R.add_(0 * phase_R.to("cpu"))


@pytest.mark.parametrize(
    ("fault", "named"),
    [
        (host_sync, "looks at data"),
        (branch, "Data-dependent branching"),
        (shape_of_the_data, "looks at data"),
        (copy_to_the_host, "looks at data"),
        (moved_to_the_host, "looks at data"),
    ],
)
def test_the_check_notices(decode_step: DecodeStep, fault: Callable[[Tensor], None], named: str) -> None:
    """Each fault in the place where somebody would add it: between inject and the language model. The tracer refuses
    it, or puts a symbol in its place."""
    with as_on_a_gpu(decode_step.model, "learned"):
        inject = decode_step.model.inject

        def faulty(*arguments: Any) -> Tensor:
            phase_R: Tensor = inject(*arguments)
            fault(phase_R)
            return phase_R

        decode_step.model.inject = faulty
        compiled, graphs = as_one_graph(decode_step.all_of_it)
        try:
            decode_step.made_by(compiled)
        except TorchDynamoException as error:
            told = str(error)
        else:
            told = "looks at data" if looks_at_data(graphs[0]) else "nothing"
    assert re.search(named, told)


def test_no_buffer_moves_in_a_thousand_steps(maze_stepper: Stepper) -> None:
    """What a captured graph reads and writes: latent state, KV cache and inputs, while requests come and go."""
    stepper = maze_stepper
    stepper.start_over()
    runner = stepper.worker.model_runner
    inputs = [runner.input_ids.gpu, runner.inputs_embeds.gpu, runner.seq_lens, runner.query_start_loc.gpu]
    kv_caches = list(runner.kv_caches)
    expected = [one.data_ptr() for one in (*tensors_of(stepper.model.state), *inputs, *kv_caches)]
    seen: set[tuple[int, ...]] = set()
    decode = type(stepper.model).decode

    def watched(ids_T: Tensor, positions: Tensor, embeds_TD: Tensor, *rest: Any) -> Tensor:
        seen.add((ids_T.data_ptr(), positions.data_ptr(), embeds_TD.data_ptr(), *(one.data_ptr() for one in rest[:3])))
        hidden_TD: Tensor = decode(stepper.model, ids_T, positions, embeds_TD, *rest)
        return hidden_TD

    add_in_a_block(stepper, "long", max_tokens=NUM_STEPS)
    stepper.model.decode = watched
    try:
        for number in range(NUM_STEPS):
            if number % 50 == 20:
                add_in_a_block(stepper, f"short-{number}", max_tokens=30)
            stepper.step()
            now = [one.data_ptr() for one in (*tensors_of(stepper.model.state), *inputs, *kv_caches)]
            assert now == expected
    finally:
        del stepper.model.decode
    assert len(stepper.ids["long"]) == NUM_STEPS
    assert len(seen) == 1  # what decode was called with lay at the same addresses every time
