"""Settings of a runner: a wrong name or value stops the start with one line that names it."""

from pathlib import Path

import pytest

from contracts.errors import BadSettings
from model_runner.checkpoint import Checkpoint
from model_runner.engine.vllm_arguments import engine_arguments
from model_runner.model.keys import ABLATION_KEY
from model_runner.settings import load_settings


def test_variables_are_read_and_arguments_win(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ILVR_RUNNER_MAX_NUM_SEQS", "7")
    assert load_settings(model=Path("m")).max_num_seqs == 7
    assert load_settings(model=Path("m"), max_num_seqs=9).max_num_seqs == 9


def test_a_misspelt_variable_is_refused_with_the_name_that_was_meant(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ILVR_RUNNER_MAX_NUM_SEQ", "7")
    with pytest.raises(BadSettings, match=r"ILVR_RUNNER_MAX_NUM_SEQ is not a setting; did you mean .*MAX_NUM_SEQS"):
        load_settings(model=Path("m"))


def test_an_impossible_value_names_option_and_variable() -> None:
    with pytest.raises(BadSettings, match=r"--max-num-seqs \(ILVR_RUNNER_MAX_NUM_SEQS\)"):
        load_settings(model=Path("m"), max_num_seqs=0)


class TestAblation:
    def test_it_switches_prefix_caching_off(self) -> None:
        assert load_settings(model=Path("m")).caches_prefixes
        assert load_settings(model=Path("m"), prefix_caching=True).caches_prefixes
        assert not load_settings(model=Path("m"), prefix_caching=False).caches_prefixes
        for mode in ("zero", "noise", "swap"):
            assert not load_settings(model=Path("m"), latent_ablation=mode).caches_prefixes
            assert not load_settings(model=Path("m"), latent_ablation=mode, prefix_caching=False).caches_prefixes

    def test_with_prefix_caching_it_is_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        told = r"^--latent-ablation zero cannot go with --prefix-caching: [^\n]*leave out one of the two$"
        with pytest.raises(BadSettings, match=told):
            load_settings(model=Path("m"), latent_ablation="zero", prefix_caching=True)
        monkeypatch.setenv("ILVR_RUNNER_PREFIX_CACHING", "1")
        monkeypatch.setenv("ILVR_RUNNER_LATENT_ABLATION", "zero")
        with pytest.raises(BadSettings, match=told):
            load_settings(model=Path("m"))

    def test_donors_are_for_swap(self) -> None:
        assert load_settings(model=Path("m"), latent_ablation="swap", latent_donors="d").latent_donors == Path("d")
        for mode in ("none", "noise"):
            with pytest.raises(BadSettings, match=r"^--latent-donors is for --latent-ablation swap alone; .*$"):
                load_settings(model=Path("m"), latent_ablation=mode, latent_donors="d")

    def test_the_engine_is_told(self, maze_checkpoint: Checkpoint) -> None:
        """Without an ablation the model gets nothing to do: no numbers of requests are kept."""
        for mode, num_processors in (("none", 1), ("zero", 2), ("noise", 2), ("swap", 2)):
            settings = load_settings(model=maze_checkpoint.folder, latent_ablation=mode)
            told = engine_arguments(settings, maze_checkpoint, is_cpu=True, uses_v2=False)
            assert told["additional_config"][ABLATION_KEY] == mode
            assert told["enable_prefix_caching"] is (mode == "none")
            assert len(told["logits_processors"]) == num_processors
