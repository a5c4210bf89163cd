"""``python -m tools.topology``: start ``deploy/compose.yml`` without Grafana, use it, stop it; 0 if all went well."""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tools.topology import client
from tools.topology.composed import ROOT, Container, resolve
from tools.topology.container import Root, Running, start, this_machine
from tools.topology.images import forget_roots, image_root
from tools.topology.network import Networks

IN_NAMESPACE = "ILVR_TOPOLOGY_NAMESPACE"
HEALTH_S = 300.0
PASSWORD = "topology-0123456789abcdef"
NOT_HERE = {"grafana": "no package of it is to be had here"}
BUILT = ("gateway", "runner")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.topology", description=__doc__)
    parser.add_argument("--images", action="store_true", help="gateways and runners in what `make images` has built")
    parser.add_argument("--deploy", type=Path, default=ROOT / "deploy", metavar="DIR", help="default: deploy/")
    args = parser.parse_args()
    if os.environ.get(IN_NAMESPACE) != "1":
        # Mounts and networks are made in namespaces that are gone when this process is.
        command = ["unshare", "--mount", "--net", "--propagation", "private", sys.executable, "-m", "tools.topology"]
        os.environ[IN_NAMESPACE] = "1"
        os.execvp(command[0], [*command, *sys.argv[1:]])
    with tempfile.TemporaryDirectory(prefix="ilvr-topology-") as folder:
        os.chmod(folder, 0o755)
        return Topology(Path(folder), args).run()


class Topology:
    def __init__(self, folder: Path, args: argparse.Namespace) -> None:
        self._folder = folder
        self._args = args
        self._began = time.monotonic()
        self._running: list[Running] = []

    def run(self) -> int:
        token = self._secrets()
        containers = resolve(self._folder / "deploy", self._folder / "volumes")
        self._networks = Networks(sorted({name for one in containers for name in one.networks}))
        try:
            for container in containers:
                self._start(container)
            self._use(token)
            return self._stop()
        except (RuntimeError, OSError, subprocess.SubprocessError) as error:
            print(f"FAILED: {error}", flush=True)
            for running in self._running:
                print(f"--- {running.container.name}\n{running.text()[-3000:]}")
            return 1
        finally:
            for running in self._running:
                running.kill()
            if self._args.images:
                forget_roots()

    def _secrets(self) -> str:
        """A copy of ``deploy`` with what a user fills in; returns an API key."""
        deploy = self._folder / "deploy"
        shutil.copytree(self._args.deploy, deploy, ignore=shutil.ignore_patterns(".env", "secrets"))
        words = [sys.executable, "-m", "ilvr", "keys", "new", "--name", "topology"]
        made = subprocess.run(words, check=True, capture_output=True, text=True, cwd=ROOT).stdout
        token, line = made.strip().splitlines()
        (deploy / "keys.toml").write_text(line + "\n")
        (deploy / "grafana-password").write_text(PASSWORD)
        text = (deploy / ".env.example").read_text()
        for name, value in (
            ("ILVR_BROKER_REDIS_PASSWORD", PASSWORD),
            ("ILVR_API_KEYS_FILE", "./keys.toml"),
            ("GRAFANA_PASSWORD_FILE", "./grafana-password"),
        ):
            text = text.replace(f"\n{name}=\n", f"\n{name}={value}\n")
        text += f"ILVR_MODELS={ROOT}/models\n"
        (deploy / ".env").write_text(text)
        return token

    def _start(self, container: Container) -> None:
        if container.service in NOT_HERE:
            self._say(container.name, f"not started: {NOT_HERE[container.service]}")
            return
        for mount in container.mounts:
            if mount.source.is_relative_to(self._folder / "volumes"):  # it belongs to who uses it
                mount.source.mkdir(parents=True, exist_ok=True)
                user, _, group = container.user.partition(":")
                os.chown(mount.source, int(user), int(group))
        began = time.monotonic()
        # Every container that is beside it from the start has a name server; so has it.
        server = self._networks.name_server(container)
        running = start(container, self._root(container), self._folder / container.name, server, self._networks.join)
        self._running.append(running)
        self._wait_until_healthy(running)
        address = self._networks.address(container)
        self._say(container.name, f"healthy after {time.monotonic() - began:.1f} s, user {container.user}, {address}")

    def _root(self, container: Container) -> Root:
        return image_root(container.image) if self._args.images and container.service in BUILT else this_machine()

    def _wait_until_healthy(self, running: Running) -> None:
        deadline = time.monotonic() + min(HEALTH_S, running.container.start_period_s)
        while why := running.why_unhealthy():
            if running.process.poll() is not None:
                raise RuntimeError(f"{running.container.name} ended with {running.process.returncode}")
            if time.monotonic() > deadline:
                raise RuntimeError(f"{running.container.name} is not healthy: {why}")
            time.sleep(0.5)

    def _use(self, token: str) -> None:
        proxy, prometheus = self._url("proxy", 8080), self._url("prometheus", 9090)
        gateways = [self._url_of(one, 8000) for one in self._of("gateway")]
        self._check("without a key", lambda: _equal(client.status(f"{proxy}/v1/reason/resp_1"), 401))
        self._check("/metrics from outside", lambda: _equal(client.status(f"{proxy}/metrics"), 404))
        self._check("/readyz", lambda: _equal(client.status(f"{proxy}/readyz"), 200))
        picture = client.draw_maze(self._folder / "maze.png", seed=7)
        arrivals = client.ask(proxy, token, picture)
        self._check("a streamed question", lambda: client.check_stream(arrivals))
        response_id = arrivals[0].data["response_id"]
        numbers = [arrival.data["sequence_number"] for arrival in arrivals]
        for number, url in enumerate(gateways, start=1):
            self._check(
                f"its events at gateway-{number}",
                lambda url=url: _equal(client.replay(url, token, response_id), numbers),
            )
        wanted = {"gateway": len(gateways), "runner": len(self._of("runner")), "proxy": 1, "prometheus": 1}
        self._check("targets of Prometheus up", lambda: client.targets(prometheus, wanted))
        self._check("alert rules", lambda: client.rules(prometheus))
        # One gateway of two is told to end: its name has one address left, and questions go to the other.
        self._check("gateway-2 stops", lambda: self._end(self._of("gateway")[1]))
        again = client.ask(proxy, token, client.draw_maze(self._folder / "maze.png", seed=8))
        self._check("a question then", lambda: client.check_stream(again))

    def _stop(self) -> int:
        """In the opposite order of the start."""
        for running in reversed(self._running):
            if running.process.poll() is None:
                self._check(f"{running.container.name} stops", lambda running=running: self._end(running))
        self._say("all", "went well")
        return 0

    def _end(self, running: Running) -> str:
        began = time.monotonic()
        status = running.stop()
        self._networks.leave(running.container)
        if status != 0:
            raise RuntimeError(f"{running.container.name} ended with {status}")
        return f"{running.container.stop_signal}, exit status 0 after {time.monotonic() - began:.1f} s"

    def _of(self, service: str) -> list[Running]:
        return [running for running in self._running if running.container.service == service]

    def _url(self, service: str, port: int) -> str:
        return self._url_of(self._of(service)[0], port)

    def _url_of(self, running: Running, port: int) -> str:
        return f"http://{self._networks.address(running.container)}:{port}"

    def _check(self, what: str, check: Callable[[], object]) -> None:
        self._say(what, str(check()))

    def _say(self, what: str, result: str) -> None:
        print(f"{time.monotonic() - self._began:6.1f} s  {what:28} {result}", flush=True)


def _equal(found: object, wanted: object) -> object:
    if found != wanted:
        raise RuntimeError(f"{found}, wanted {wanted}")
    return found


if __name__ == "__main__":
    sys.exit(main())
