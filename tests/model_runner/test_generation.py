"""Sampling as the checkpoint says, where the caller leaves it open."""

import json
from pathlib import Path
from typing import Any

import pytest

from contracts.errors import BadCheckpoint, PromptTooLong
from contracts.jobs import Sampling
from model_runner.engine.base import SamplingSettings
from model_runner.generation import GenerationDefaults, read_generation_defaults
from tests.model_runner.folders import GOLDEN

NOTHING = Sampling()


def defaults(folder: Path, given: dict[str, Any] | None, config: dict[str, Any] | None = None) -> GenerationDefaults:
    if given is not None:
        (folder / "generation_config.json").write_text(json.dumps(given))
    return read_generation_defaults(folder, config or {})


def resolve(of: GenerationDefaults, asked: Sampling = NOTHING, *, prompt: int = 10) -> SamplingSettings:
    return of.resolve(asked, num_prompt_tokens=prompt, context_tokens=1000)


class TestDefaults:
    @pytest.mark.parametrize(("name", "penalty"), [("b", 1.0), ("c", 1.05)])
    def test_the_recorded_checkpoints(self, name: str, penalty: float) -> None:
        """``do_sample`` with temperature 1e-6: they mean greedy."""
        found = read_generation_defaults(GOLDEN / f"ckpt-{name}-config", {})
        assert found.end_ids == (151645, 151643)
        settings = resolve(found)
        assert (settings.temperature, settings.repetition_penalty) == (0.0, penalty)
        assert settings.max_tokens == 512

    @pytest.mark.parametrize(
        ("given", "temperature"),
        [
            ({}, 0.0),
            ({"do_sample": False, "temperature": 0.7}, 0.0),
            ({"temperature": 0.7}, 0.0),  # not without do_sample
            ({"do_sample": True}, 1.0),
            ({"do_sample": True, "temperature": 0.7}, 0.7),
            ({"do_sample": True, "temperature": 1e-6}, 0.0),
            ({"do_sample": True, "temperature": 0.0099}, 0.0),
            ({"do_sample": True, "temperature": 0.01}, 0.01),
            ({"do_sample": True, "temperature": None}, 1.0),
        ],
    )
    def test_temperature(self, given: dict[str, Any], temperature: float, tmp_path: Path) -> None:
        assert resolve(defaults(tmp_path, {"eos_token_id": 1, **given})).temperature == temperature

    def test_what_the_file_says(self, tmp_path: Path) -> None:
        given = {"eos_token_id": 1, "do_sample": True, "top_p": 0.8, "top_k": 20, "repetition_penalty": 1.05}
        assert resolve(defaults(tmp_path, given)) == SamplingSettings(
            max_tokens=512, temperature=1.0, top_p=0.8, top_k=20, repetition_penalty=1.05, seed=None
        )

    @pytest.mark.parametrize("given", [{}, {"top_p": None, "top_k": None, "repetition_penalty": None}])
    def test_what_it_leaves_out_is_as_in_hugging_face(self, given: dict[str, Any], tmp_path: Path) -> None:
        settings = resolve(defaults(tmp_path, {"eos_token_id": 1, **given}))
        assert (settings.top_p, settings.top_k, settings.repetition_penalty) == (1.0, 50, 1.0)


class TestEndIds:
    def test_one(self, tmp_path: Path) -> None:
        assert defaults(tmp_path, {"eos_token_id": 3}).end_ids == (3,)

    def test_several(self, tmp_path: Path) -> None:
        assert defaults(tmp_path, {"eos_token_id": [3, 4]}, {"eos_token_id": 9}).end_ids == (3, 4)

    @pytest.mark.parametrize("given", [None, {}, {"eos_token_id": None}])
    def test_of_the_config(self, given: dict[str, Any] | None, tmp_path: Path) -> None:
        assert defaults(tmp_path, given, {"eos_token_id": 9}).end_ids == (9,)

    def test_of_the_section_for_the_language_model(self, tmp_path: Path) -> None:
        """Where folders saved since transformers 5 have it."""
        assert defaults(tmp_path, {}, {"text_config": {"eos_token_id": 9}}).end_ids == (9,)

    @pytest.mark.parametrize("config", [{}, {"eos_token_id": None}, {"text_config": {}}])
    def test_none(self, config: dict[str, Any], tmp_path: Path) -> None:
        with pytest.raises(BadCheckpoint, match="has an eos_token_id"):
            defaults(tmp_path, {}, config)

    @pytest.mark.parametrize(
        "given", [{"eos_token_id": "x"}, {"eos_token_id": [1, "x"]}, {"eos_token_id": 1, "top_p": {}}]
    )
    def test_a_value_that_is_no_number(self, given: dict[str, Any], tmp_path: Path) -> None:
        with pytest.raises(BadCheckpoint, match="no number"):
            defaults(tmp_path, given)

    def test_no_json(self, tmp_path: Path) -> None:
        (tmp_path / "generation_config.json").write_text("{")
        with pytest.raises(BadCheckpoint, match="cannot be read"):
            defaults(tmp_path, None)


class TestResolve:
    DEFAULTS = GenerationDefaults(end_ids=(1,), temperature=0.7, top_p=0.8, top_k=20, repetition_penalty=1.05)

    def test_asked_values_win(self) -> None:
        asked = Sampling(max_tokens=7, temperature=0.3, top_p=0.5, top_k=3, repetition_penalty=1.5, seed=4)
        assert resolve(self.DEFAULTS, asked) == SamplingSettings(
            max_tokens=7, temperature=0.3, top_p=0.5, top_k=3, repetition_penalty=1.5, seed=4
        )

    def test_zero_is_asked_for_too(self) -> None:
        settings = resolve(self.DEFAULTS, Sampling(temperature=0.0, top_k=0, seed=0))
        assert (settings.temperature, settings.top_k, settings.seed) == (0.0, 0, 0)

    def test_an_asked_temperature_below_a_hundredth_is_greedy(self) -> None:
        assert resolve(self.DEFAULTS, Sampling(temperature=0.0099)).temperature == 0.0
        assert resolve(self.DEFAULTS, Sampling(temperature=0.01)).temperature == 0.01

    def test_top_k_of_minus_1_is_off(self) -> None:
        assert resolve(self.DEFAULTS, Sampling(top_k=-1)).top_k == 0

    @pytest.mark.parametrize(
        ("prompt", "asked", "given"),
        [
            (10, None, 512),
            (500, None, 500),
            (900, None, 100),
            (999, None, 1),
            (990, 40, 10),
            (990, 5, 5),
            (0, 2000, 1000),
        ],
    )
    def test_as_much_as_the_context_leaves(self, prompt: int, asked: int | None, given: int) -> None:
        assert resolve(self.DEFAULTS, Sampling(max_tokens=asked), prompt=prompt).max_tokens == given

    @pytest.mark.parametrize("prompt", [1000, 1001])
    def test_no_room_for_one_token(self, prompt: int) -> None:
        with pytest.raises(PromptTooLong, match=f"{prompt} tokens.*holds 1000"):
            resolve(self.DEFAULTS, prompt=prompt)
