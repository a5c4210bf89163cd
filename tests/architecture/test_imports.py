"""Import rules that import-linter does not express; the others stand in pyproject.toml."""

import ast
import subprocess
import sys
import time

import pytest

from tests.servers import ROOT

PACKAGES = ("contracts", "broker", "service", "model_runner", "training", "ilvr")


def modules_importing(library):
    """Source files that import a library anywhere in them, relative to the root."""
    found = set()
    for package in PACKAGES:
        for file in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text())):
                names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
                names += [node.module or ""] if isinstance(node, ast.ImportFrom) and node.level == 0 else []
                if any(name.split(".")[0] == library for name in names):
                    found.add(str(file.relative_to(ROOT)))
    return found


def test_vllm_is_imported_only_by_the_engine_and_the_model_class():
    found = modules_importing("vllm")
    assert "model_runner/model/ilvr.py" in found
    assert {name for name in found if not name.startswith(("model_runner/engine/", "model_runner/model/"))} == set()


def test_triton_is_imported_only_by_kernels():
    found = modules_importing("triton")
    assert {
        name for name in found if not (name.startswith("model_runner/kernels/") and name.endswith("/kernel.py"))
    } == set()


def modules_after(code):
    """Names of the modules that are loaded after a piece of code ran in a fresh interpreter."""
    script = f"import sys\n{code}\nprint(*sorted(sys.modules), file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert done.returncode == 0, done.stderr
    return set(done.stderr.splitlines()[-1].split())


HEAVY = {"torch", "vllm", "transformers"}


def test_the_gateway_loads_nothing_heavy():
    loaded = modules_after("import ilvr.processes.gateway, ilvr.commands.gateway, broker.embedded")
    assert "fastapi" in loaded
    assert loaded & HEAVY == set()


@pytest.mark.parametrize("args", [["--help"], ["maze", "--size", "4", "--seed", "7", "--out", "{folder}/maze.png"]])
def test_light_commands_load_nothing_heavy_and_answer_at_once(args, tmp_path):
    args = [arg.format(folder=tmp_path) for arg in args]
    code = f"from ilvr.cli import main\ntry:\n    main({args})\nexcept SystemExit:\n    pass"
    assert modules_after(code) & (HEAVY | {"fastapi"}) == set()
    seconds = []
    while len(seconds) < 20 and not (seconds and min(seconds) < 0.5):  # other work on the machine is not the command's
        began = time.monotonic()
        subprocess.run([sys.executable, "-m", "ilvr", *args], capture_output=True, check=True, cwd=ROOT)
        seconds.append(time.monotonic() - began)
    assert min(seconds) < 0.5


def test_importing_a_module_builds_no_settings_and_no_metric():
    code = (
        "import prometheus_client\nbefore = set(prometheus_client.REGISTRY._names_to_collectors)\n"
        "import service.app, broker.embedded, model_runner.runner, model_runner.main, ilvr.processes.serve\n"
        "assert set(prometheus_client.REGISTRY._names_to_collectors) == before"
    )
    modules_after(code)
