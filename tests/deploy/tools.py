"""The programs that check what is deployed. One that is missing fails the test: there is nothing to skip to."""

import os
import shutil
import subprocess
from pathlib import Path

from tests.servers import ROOT

DEPLOY = ROOT / "deploy"
DCLINT = ROOT / "build/deploy-tools/node_modules/.bin/dclint"
SECRETS = {
    "ILVR_BROKER_REDIS_PASSWORD": "ILVR_BROKER_REDIS_PASSWORD=0123456789abcdef",
    "ILVR_API_KEYS_FILE": "ILVR_API_KEYS_FILE=./secrets/api-keys.toml",
    "GRAFANA_PASSWORD_FILE": "GRAFANA_PASSWORD_FILE=./secrets/grafana",
}


def program(name: str) -> str:
    """Its path. Raises ``RuntimeError``, which says how to get it."""
    found = shutil.which(name) or (str(DCLINT) if name == "dclint" and DCLINT.exists() else None)
    if found is None:
        raise RuntimeError(f"{name} is not installed: run `make deploy-tools`")
    return found


def run(*command: str, folder: Path = ROOT, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [program(command[0]), *command[1:]],
        cwd=folder,
        env={"PATH": os.environ["PATH"], "HOME": str(folder), **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )


def filled_in(leave_out: str = "") -> str:
    """``.env.example`` with the secrets that it asks for, as a user fills it in."""
    text = (DEPLOY / ".env.example").read_text()
    for name, line in SECRETS.items():
        if name != leave_out:
            text = text.replace(f"\n{name}=\n", f"\n{line}\n")
    return text


def deploy_copy(folder: Path, *, environment: str | None = None) -> Path:
    """A copy of ``deploy/`` with a ``.env``, so that nothing of the user's own one is read or written."""
    copy = folder / "deploy"
    shutil.copytree(DEPLOY, copy, ignore=shutil.ignore_patterns(".env", "secrets"))
    (copy / ".env").write_text(filled_in() if environment is None else environment)
    return copy
