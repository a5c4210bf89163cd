"""The benchmark of training at a small size: all forms agree, it refuses if they do not, and it writes its report."""

import json
from pathlib import Path

import pytest
import torch

from benchmarks import naive_training, training, training_forms
from benchmarks.training_forms import CACHED, EMA, FORMS, NAIVE, OURS, Form, prepare
from benchmarks.training_model import Setting, random_sample

SMALL = Setting(layers=2, hidden=64, image_tokens=6, text_tokens=25, blocks=2)
ARGUMENTS = ["--layers", "2", "--hidden", "64", "--image-tokens", "6", "--text-tokens", "25", "--blocks", "2"]


@pytest.mark.parametrize("form", [form for form in FORMS if form.by != NAIVE], ids=lambda form: form.name)
def test_every_form_gives_the_naive_loss_and_gradients(form: Form) -> None:
    naive, ours = prepare(Form(stage=form.stage, by=NAIVE, recomputed=form.recomputed), SMALL), prepare(form, SMALL)
    assert ours.run() == pytest.approx(naive.run(), rel=1e-5)
    wanted = {name: one.grad for name, one in naive.model.named_parameters() if one.grad is not None}
    found = {name: one.grad for name, one in ours.model.named_parameters() if one.grad is not None}
    assert found.keys() == wanted.keys()
    for name, gradient in wanted.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-3, atol=1e-4 * float(gradient.abs().max()))


def _expected_calls() -> dict[Form, list[int]]:
    """Tokens of each pass of a form over the decoder, for a sample of two blocks."""
    one = random_sample(SMALL)
    whole, last_start = len(one.input_ids), one.blocks[-1].first_pad
    prefixes = [pad for block in one.blocks for pad in range(block.first_pad, block.end)]
    return {
        Form(stage=1, by=NAIVE, recomputed=False): [whole] * 4,  # 2 blocks + 1 of the teacher, 1 of the student
        Form(stage=1, by=EMA, recomputed=False): [last_start, whole],
        Form(stage=1, by=CACHED, recomputed=False): [whole],
        Form(stage=2, by=NAIVE, recomputed=False): [*prefixes, whole],
    }


@pytest.mark.parametrize("form", [form for form in FORMS if not form.recomputed], ids=lambda form: form.name)
def test_forms_make_the_passes_that_they_are_said_to_make(form: Form, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted at the decoder's layers, of any model."""
    one = prepare(form, SMALL)
    layer = type(one.model.model.language_model.layers[0])
    stock, counts = layer.forward, []

    def counted(self: torch.nn.Module, hidden_states: torch.Tensor, *args: object, **kwargs: object) -> torch.Tensor:
        counts.append(hidden_states.shape[1])
        return stock(self, hidden_states, *args, **kwargs)

    monkeypatch.setattr(layer, "forward", counted)
    one.run()
    if form.by == OURS:
        assert sum(counts) == one.num_tokens * SMALL.layers
    else:
        assert counts[:: SMALL.layers] == _expected_calls()[form]


def test_forms_that_disagree_are_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    stock = naive_training.naive_stage2_loss
    monkeypatch.setattr(training_forms, "naive_stage2_loss", lambda *a, **k: 1.001 * stock(*a, **k))
    with pytest.raises(SystemExit, match="not measured: stage 2"):
        training.main([*ARGUMENTS, "--repetitions", "1"])


def test_other_targets_are_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the loss hides it."""
    stock = naive_training.naive_stage1_loss

    def reordered(*args: object) -> object:
        loss, found = stock(*args)
        found.blocks[0][0].chosen.reverse()
        return loss, found

    monkeypatch.setattr(training_forms, "naive_stage1_loss", reordered)
    with pytest.raises(SystemExit, match=r"not measured: stage 1.*targets"):
        training.check_agreement(SMALL)


def test_the_report_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With memory measured in a process of its own for one form only, since each takes seconds to start."""
    fresh, asked = training._peak_in_fresh_process, []

    def first_only(form: Form, setting: Setting) -> float:
        asked.append(form)
        return fresh(form, setting) if len(asked) == 1 else 0.0

    monkeypatch.setattr(training, "_peak_in_fresh_process", first_only)
    out = tmp_path / "results" / "small"
    assert training.main([*ARGUMENTS, "--repetitions", "2", "--out", str(out)]) == 0
    page = out.with_suffix(".md").read_text()
    assert page in capsys.readouterr().out
    rows = [line for line in page.splitlines() if line.startswith(("| 1", "| 2"))]
    assert len(rows) == len(FORMS) == len(asked) == 10
    content = json.loads(out.with_suffix(".json").read_text())
    assert content["environment"]["command"].endswith("--repetitions 2 --out " + str(out))
    assert content["environment"].keys() >= {"commit", "processor", "cores", "threads", "torch", "transformers"}
    assert content["setting"]["hidden"] == 64
    for result in content["results"]:
        naive = next(
            one
            for one in content["results"]
            if one["form"]
            == {"stage": result["form"]["stage"], "by": NAIVE, "recomputed": result["form"]["recomputed"]}
        )
        assert len(result["seconds"]) == 2
        assert result["ratios"] == pytest.approx(
            [slow / fast for slow, fast in zip(naive["seconds"], result["seconds"], strict=True)]
        )
    assert content["results"][0]["peak_mib"] > 0


@pytest.mark.parametrize("wrong", [["--hidden", "100"], ["--blocks", "0"], ["--repetitions", "0"]], ids=" ".join)
def test_what_cannot_be_measured_is_refused(wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        training.main(wrong)
    assert "must be" in capsys.readouterr().err
