"""``ilvr serve`` before it starts anything."""

import argparse
from pathlib import Path

import pytest

from contracts.errors import BadSettings
from ilvr import engine_options
from ilvr.cli import main
from ilvr.commands import serve
from ilvr.defaults import EMBEDDED_MODEL


def parsed(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    serve.add_arguments(parser)
    return parser.parse_args(words)


def test_without_a_model_it_is_the_embedded_one(monkeypatch: pytest.MonkeyPatch) -> None:
    assert serve.runner_settings(parsed()).model == EMBEDDED_MODEL
    monkeypatch.setenv("ILVR_RUNNER_MODEL", "/elsewhere")
    assert serve.runner_settings(parsed()).model == Path("/elsewhere")
    assert serve.runner_settings(parsed("--model", "here")).model == Path("here")


def test_options_become_settings() -> None:
    words = ("--latent-exit", "fixed", "--dtype", "bfloat16", "--max-num-seqs", "3", "--no-prefix-caching")
    settings = serve.runner_settings(parsed(*words))
    assert (settings.latent_exit, settings.dtype, settings.max_num_seqs) == ("fixed", "bfloat16", 3)
    assert not settings.prefix_caching
    settings = serve.runner_settings(parsed("--max-history-latents", "7", "--max-replayed-pads", "2"))
    assert (settings.max_history_latents, settings.max_replayed_pads) == (7, 2)
    assert settings.gpu_memory_utilization is None
    assert serve.runner_settings(parsed("--gpu-memory-utilization", "0.4")).gpu_memory_utilization == 0.4


def test_an_ablation_is_a_setting_of_the_engine() -> None:
    settings = serve.runner_settings(parsed("--latent-ablation", "swap", "--latent-donors", "d.jsonl"))
    assert (settings.latent_ablation, settings.latent_donors) == ("swap", Path("d.jsonl"))
    assert not settings.caches_prefixes
    assert serve.runner_settings(parsed()).latent_ablation == "none"


def test_an_ablation_with_prefix_caching_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--latent-ablation", "noise", "--prefix-caching"]) == 1
    told = capsys.readouterr().err
    assert told.startswith("ilvr serve: --latent-ablation noise cannot go with --prefix-caching: ")
    assert told.count("\n") == 1


def test_an_unknown_ablation_lists_those_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parsed("--latent-ablation", "zeros")
    assert "'none', 'zero', 'noise', 'swap'" in capsys.readouterr().err


def test_an_engine_that_is_not_installed_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """The gateway installs without any."""
    monkeypatch.setattr(engine_options, "find_spec", lambda name: None)
    with pytest.raises(BadSettings, match=r"vllm is not installed; install ilvr\[cpu\]"):
        serve.run(parsed())
