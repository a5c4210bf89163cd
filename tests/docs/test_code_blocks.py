"""The ``bash`` blocks of README and docs run, in order, against a real server. ``console`` blocks are only shown."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.servers import ROOT, running_server

BLOCK = re.compile(r"^```bash\n(.*?)^```", re.MULTILINE | re.DOTALL)
PAGES = ("README.md", "docs/api.md")


@pytest.fixture(scope="module")
def server():
    with running_server() as running:
        yield running


def blocks(page):
    return BLOCK.findall((ROOT / page).read_text())


def run(block, server, folder):
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    script = block.replace("127.0.0.1:8000", server.url.removeprefix("http://"))
    script = script.replace("ilvr ask ", f"ilvr ask --url {server.url} ")
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=folder,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize("page", PAGES)
def test_code_blocks_run_and_answer(page, server, tmp_path):
    outputs = []
    for block in blocks(page):
        done = run(block, server, tmp_path)
        assert done.returncode == 0, f"{block}\n{done.stdout}{done.stderr}"
        assert not re.search(r'"error":\s*\{', done.stdout), done.stdout
        if "stream=true" in block:
            assert "event: response.completed" in done.stdout
        outputs.append(done.stdout)
    assert len(outputs) >= 1
    assert "\\boxed" in "".join(outputs).replace("\\\\", "\\")


def test_every_page_with_bash_blocks_is_run():
    pages = ["README.md", "CONTRIBUTING.md", *(str(path.relative_to(ROOT)) for path in (ROOT / "docs").glob("*.md"))]
    assert {page for page in pages if blocks(page)} == set(PAGES)


def test_relative_links_lead_somewhere():
    for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_files_named_in_the_walk_through_exist():
    named = re.findall(
        r"`((?:service|broker|model_runner|contracts|tests)/[\w/.]+)`", (ROOT / "docs/request.md").read_text()
    )
    assert len(named) > 20
    assert [name for name in named if not (ROOT / name).exists()] == []
