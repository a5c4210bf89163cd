"""Sampling in all its forms: no setting breaks a block, and a seed gives the same whatever else is in the batch."""

import pytest

from tests.parity.stepper import ALL_PADS, BLOCK_SIZE
from tests.parity.test_block_rules import block_sizes
from tests.parity.traces import END_ID, PAD_ID, START_ID, K, read_traces, text_request

END_OF_TEXT = 151645
RULES = ("learned", "fixed")
# So few other tokens that the markers are sampled often, inside blocks and outside.
FEW = {
    "allowed_token_ids": [*range(1000, 1030), END_OF_TEXT, PAD_ID, START_ID, END_ID],
    "logit_bias": {END_OF_TEXT: -2.0, START_ID: -2.0},
}
SETTINGS = {
    "temperature": {"temperature": 1.0},
    "hot": {"temperature": 2.0},
    "top-p": {"temperature": 1.5, "top_p": 0.8},
    "top-k": {"temperature": 1.5, "top_k": 20},
    "min-p": {"temperature": 1.5, "min_p": 0.1},
    "repetition penalty": {"temperature": 0.0, "repetition_penalty": 1.5},
    "presence and frequency": {"temperature": 1.0, "presence_penalty": 1.5, "frequency_penalty": 0.5},
    "all": {
        "temperature": 1.2,
        "top_p": 0.95,
        "top_k": 100,
        "min_p": 0.01,
        "repetition_penalty": 1.1,
        "presence_penalty": -0.5,
    },
}
HISTORIES = {
    "text": (),
    "START": (START_ID,),
    "a block": (START_ID, PAD_ID, PAD_ID, PAD_ID),
    "full": (START_ID, *[PAD_ID] * K),
}

every_rule = pytest.mark.parametrize("rule", RULES)


def request(name, history=(), max_tokens=60):
    """Text alone: tokens that were recorded, without their image."""
    return text_request((*read_traces("c")[3].prompt_ids[-20:], *history), name, max_tokens=max_tokens)


def seeded(stepper, tag, history, seed, **changes):
    """All settings at once. Answers by setting."""
    for name, sampling in SETTINGS.items():
        told = {**FEW, **sampling, "seed": seed, **changes}
        stepper.add(request(f"{tag} {name}", HISTORIES[history]), **told)
    stepper.run()
    return {name: tuple(stepper.ids[f"{tag} {name}"]) for name in SETTINGS}


def check_blocks(stepper, rule, history, seeds):
    """The end of the text, sampled inside a block, ends nothing; sampled outside it does."""
    sizes = []
    reasons = set()
    for seed in seeds:
        for name, ids in seeded(stepper, f"{seed}", history, seed).items():
            sizes += block_sizes((*HISTORIES[history], *ids), ends_early=rule == "learned")
            reason = stepper.reasons[f"{seed} {name}"]
            assert (reason == "stop") == (ids[-1] == END_OF_TEXT)
            reasons.add(reason)
    assert reasons == {"stop", "length"}
    assert sizes.count(K) > 5
    assert rule == "fixed" or len({size for size in sizes if size < K}) > 3


@every_rule
def test_blocks_are_well_formed(stepper_of, rule):
    check_blocks(stepper_of("c", rule=rule, block_size=BLOCK_SIZE), rule, "a block", range(2))


@pytest.mark.slow
@every_rule
@pytest.mark.parametrize("history", HISTORIES)
def test_blocks_are_well_formed_many_times(stepper_of, rule, history):
    check_blocks(stepper_of("c", rule=rule, block_size=BLOCK_SIZE), rule, history, range(100, 120))


@every_rule
def test_a_seed_gives_the_same_alone_and_in_a_crowd(stepper_of, rule):
    """And when the crowd is preempted in the middle of it all."""
    stepper = stepper_of("c", rule=rule, block_size=BLOCK_SIZE)
    crowd = seeded(stepper, "crowd", "a block", 7)
    for name, sampling in SETTINGS.items():
        one = request(name, HISTORIES["a block"])
        assert stepper.answer(one, seed=7, **FEW, **sampling) == crowd[name]
    stepper.start_over(max_replayed_pads=ALL_PADS)
    for name, sampling in SETTINGS.items():
        stepper.add(request(name, HISTORIES["a block"]), seed=7, **FEW, **sampling)
    for _ in range(5):
        for _ in range(4):
            stepper.step()
        stepper.preempt()
    stepper.run()
    assert {name: tuple(stepper.ids[name]) for name in SETTINGS} == crowd
    assert len(set(crowd.values())) > 3


@pytest.mark.parametrize("max_tokens", [1, 5])
def test_a_seed_is_not_used_up_by_a_prompt_in_chunks(stepper_of, max_tokens):
    """vLLM samples for requests in the middle of their prompt too; on a CPU, with a seed, it would end itself."""
    stepper = stepper_of("c", block_size=BLOCK_SIZE)
    sampling = {"temperature": 1.0, "seed": 3}
    whole = stepper.answer(request("whole"), **sampling)
    stepper.start_over()
    stepper.add(request("chunks"), **sampling)
    while stepper.llm.has_unfinished_requests():
        stepper.step(max_tokens)
    assert max(count for step in stepper.scheduled for count in step.values()) == max_tokens
    assert tuple(stepper.ids["chunks"]) == whole


@every_rule
def test_several_samples_of_one_prompt(stepper_of, rule):
    """``n``: each is the answer to a single request with the seed that vLLM gives it."""
    stepper = stepper_of("c", rule=rule, block_size=BLOCK_SIZE)
    sampling = {"temperature": 2.0, **FEW}
    stepper.add(request("three", HISTORIES["a block"]), n=3, seed=40, **sampling)
    stepper.run()
    samples = [tuple(stepper.ids[f"three#{n}"]) for n in range(3)]
    for n, ids in enumerate(samples):
        block_sizes((*HISTORIES["a block"], *ids), ends_early=rule == "learned")
        assert stepper.answer(request(f"{n}", HISTORIES["a block"]), seed=40 + n, **sampling) == ids
    assert len(set(samples)) == 3
    assert stepper.is_empty()
