"""The compose file as docker-compose resolves it: one ``Container`` for each replica of each service."""

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
UNITS_S = {"s": 1, "m": 60, "h": 3600}


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """A folder or file of this machine in a container. A named volume is a folder that is made for it."""

    source: Path
    target: str
    is_read_only: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Container:
    service: str
    name: str
    image: str
    command: list[str]
    environment: dict[str, str]
    user: str
    mounts: list[Mount]
    tmpfs: list[str]
    networks: list[str]
    needs: list[str]
    health_check: list[str]
    health_interval_s: float
    start_period_s: float
    stop_signal: str
    stop_grace_s: float
    shm_size: str
    has_init: bool
    is_read_only: bool
    drops_all: bool
    no_new_privileges: bool


def resolve(folder: Path, volumes: Path) -> list[Container]:
    """Of ``compose.yml`` and ``.env`` in ``folder``, in the order of their dependencies. Raises ``RuntimeError``."""
    program = shutil.which("docker-compose")
    if program is None:
        raise RuntimeError("docker-compose is not installed: run `make deploy-tools`")
    command = [program, "-f", str(folder / "compose.yml"), "--project-directory", str(folder), "config"]
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder)}
    done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, timeout=60)
    if done.returncode != 0:
        raise RuntimeError(done.stderr)
    # What it prints is a compose file again, in which a dollar sign is two.
    project = yaml.safe_load(done.stdout.replace("$$", "$"))
    services: dict[str, Any] = project["services"]
    found = []
    for name in _in_order(services):
        for number in range(1, services[name].get("deploy", {}).get("replicas", 1) + 1):
            found.append(_container(name, number, services[name], project, volumes))
    return found


def _in_order(services: dict[str, Any]) -> list[str]:
    """Each after all that it depends on; the file's order otherwise."""
    ordered: list[str] = []
    while len(ordered) < len(services):
        ready = [
            name
            for name in services
            if name not in ordered and all(need in ordered for need in services[name].get("depends_on", {}))
        ]
        ordered.append(ready[0])
    return ordered


def _container(name: str, number: int, service: dict[str, Any], project: dict[str, Any], volumes: Path) -> Container:
    check, security = service["healthcheck"], service.get("security_opt", [])
    test = check["test"]
    secrets = [
        Mount(
            source=Path(project["secrets"][_name(secret)]["file"]),
            target=f"/run/secrets/{_name(secret)}",
            is_read_only=True,
        )
        for secret in service.get("secrets", [])
    ]
    return Container(
        service=name,
        name=f"{name}-{number}",
        image=service["image"],
        command=[*service.get("entrypoint", []), *service.get("command", [])],
        environment={key: "" if value is None else str(value) for key, value in service.get("environment", {}).items()},
        user=service["user"],
        mounts=[_mount(text, volumes) for text in service.get("volumes", [])] + secrets,
        tmpfs=service.get("tmpfs", []),
        networks=list(service["networks"]),
        needs=list(service.get("depends_on", {})),
        health_check=["sh", "-c", test[1]] if test[0] == "CMD-SHELL" else test[1:],
        health_interval_s=_seconds(check["interval"]),
        start_period_s=_seconds(check.get("start_period", "0s")) + check["retries"] * _seconds(check["interval"]),
        stop_signal=service.get("stop_signal", "SIGTERM"),
        stop_grace_s=_seconds(service["stop_grace_period"]),
        shm_size=service.get("shm_size", "64m"),
        has_init=service.get("init", False),
        is_read_only=service.get("read_only", False),
        drops_all=service.get("cap_drop") == ["ALL"],
        no_new_privileges="no-new-privileges:true" in security,
    )


def _name(secret: str | dict[str, str]) -> str:
    return secret if isinstance(secret, str) else secret["source"]


def _mount(text: str, volumes: Path) -> Mount:
    source, target, mode = text.split(":")
    folder = Path(source) if source.startswith("/") else volumes / source
    return Mount(source=folder, target=target, is_read_only=mode == "ro")


def _seconds(text: str) -> float:
    return sum(float(number) * UNITS_S[unit] for number, unit in re.findall(r"([\d.]+)([smh])", text))
