"""One container of the compose file as a process: its own mounts, network and process ids, and its own user."""

import os
import shlex
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tools.topology.composed import ROOT, Container, Mount

JOIN_S = 10.0
# What an image says and the compose file does not.
ENTRYPOINTS = {"prom/prometheus": ["prometheus"]}
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
INIT = "/usr/bin/tini-static"
# However this process ends, its containers do: a first process gets SIGKILL with its parent, its namespace with it.
DIE_WITH_PARENT = ("--pdeathsig", "KILL")
UNSHARE = ("setpriv", *DIE_WITH_PARENT, "unshare", "--mount", "--net", "--pid", "--fork", "--propagation", "private")


@dataclass
class Root:
    """The root file system below what the compose file mounts: this machine's, or an image's.

    path: of programs in it. mounts: what the Dockerfile puts where this machine does not have it. open_folders: of this
    machine, which a user who is not root must pass to get at its Python.
    """

    folder: Path
    path: str
    environment: dict[str, str]
    mounts: list[Mount] = field(default_factory=list)
    open_folders: list[str] = field(default_factory=list)


def this_machine() -> Root:
    venv = ROOT / ".venv"
    python = (venv / "bin/python").resolve()
    return Root(
        folder=Path("/"),
        path=f"{venv}/bin:{PATH}",
        environment={},
        mounts=[
            Mount(source=ROOT / "deploy/healthcheck.py", target="/usr/local/bin/healthcheck.py", is_read_only=True)
        ],
        open_folders=[str(folder) for folder in python.parents if folder != Path("/")],
    )


@dataclass
class Running:
    container: Container
    process: subprocess.Popen[bytes]
    log: Path
    environment: dict[str, str]
    pid: int = 0  # of its first process, outside

    def why_unhealthy(self) -> str:
        """What its health check says, run beside it as its user; nothing if it is healthy."""
        inside = ["nsenter", "--target", str(self.pid), "--all", "--root", *_as_user(self.container)]
        done = subprocess.run(
            [*inside, "env", "-i", "-C", "/tmp", *_pairs(self.environment), *self.container.health_check],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=30,
        )
        return f"{done.returncode}: {done.stdout}" if done.returncode else ""

    def stop(self) -> int:
        """Its stop signal, and SIGKILL after its grace period; returns its exit status, negative for a signal."""
        os.kill(self.pid, getattr(signal, self.container.stop_signal))
        try:
            return self.process.wait(timeout=self.container.stop_grace_s)
        except subprocess.TimeoutExpired:
            self.kill()
            return -signal.SIGKILL

    def kill(self) -> None:
        """All of its processes, at once."""
        if self.process.poll() is None:
            os.kill(self.pid, signal.SIGKILL)
            self.process.wait()

    def text(self) -> str:
        return self.log.read_text(errors="replace")


def start(
    container: Container, root: Root, folder: Path, name_server: str, join: Callable[[Container, int], None]
) -> Running:
    """Returns when its command has begun. ``join`` is called with the id of its first process, to give it a network."""
    folder.mkdir(parents=True)
    (folder / "resolv.conf").write_text(f"nameserver {name_server}\noptions ndots:0 timeout:1\n")
    environment = {"PATH": root.path, "HOME": "/tmp", **root.environment, **container.environment}
    log = folder / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*UNSHARE, "sh", "-euc", _script(container, root, folder, environment)],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
        )
    running = Running(container, process, log, environment)
    running.pid = _first_child(process)
    join(container, running.pid)
    assert process.stdin is not None
    process.stdin.write(b"joined\n")
    process.stdin.close()
    return running


def _first_child(process: "subprocess.Popen[bytes]") -> int:
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    deadline = time.monotonic() + JOIN_S
    while not (found := children.read_text().split()):
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError("no namespaces could be made: this must run as root")
        time.sleep(0.01)
    return int(found[0])


def _script(container: Container, root: Root, folder: Path, environment: dict[str, str]) -> str:
    """What the first process does before it becomes the command."""
    base = folder / "layers"
    new = base / "root"
    # The lower layer is never written: a change, were one allowed, would land on a tmpfs that goes with the process.
    lines = [
        f"mkdir -p {base}",
        f"mount -t tmpfs -o mode=755 tmpfs {base}",
        f"mkdir {base}/upper {base}/work {new}",
        f"mount -t overlay overlay -o lowerdir={root.folder},upperdir={base}/upper,workdir={base}/work {new}",
        f"cd {new}",
        "mkdir -p proc dev sys tmp run run/secrets",
        *(f"chmod o+rx .{name}" for name in root.open_folders),
        "mount -t proc proc proc",
        "mount --rbind /dev dev",
        "mount --bind /sys sys",
        "mount -o remount,bind,ro sys",
        f"mount -t tmpfs -o mode=1777,size={container.shm_size} tmpfs dev/shm",
        *(line for text in container.tmpfs for line in _tmpfs(text)),
        *(line for mount in [*root.mounts, *container.mounts] for line in _bind(mount)),
        *_bind(Mount(source=folder / "resolv.conf", target="/etc/resolv.conf", is_read_only=True)),
        *(_bind(Mount(source=Path(INIT), target="/run/init", is_read_only=True)) if container.has_init else []),
        *(["mount -o remount,bind,ro ."] if container.is_read_only else []),
        "read -r joined",
        " ".join(
            ["exec chroot .", *_as_user(container), *DIE_WITH_PARENT, "env -i -C /tmp"]
            + [shlex.quote(word) for word in [*_pairs(environment), *_command(container)]]
            + ["</dev/null"]
        ),
    ]
    return "\n".join(lines)


def _command(container: Container) -> list[str]:
    entrypoint = ENTRYPOINTS.get(container.image.rpartition(":")[0], [])
    return [*(["/run/init", "--"] if container.has_init else []), *entrypoint, *container.command]


def _as_user(container: Container) -> list[str]:
    user, _, group = container.user.partition(":")
    words = ["setpriv", f"--reuid={user}", f"--regid={group}", "--clear-groups"]
    words += ["--bounding-set=-all", "--inh-caps=-all"] if container.drops_all else []
    return words + (["--no-new-privs"] if container.no_new_privileges else [])


def _tmpfs(text: str) -> list[str]:
    target, _, options = text.partition(":")
    return [f"mkdir -p .{target}", f"mount -t tmpfs -o mode=1777{',' + options if options else ''} tmpfs .{target}"]


def _bind(mount: Mount) -> list[str]:
    target = f".{mount.target}"
    make = f"mkdir -p {target}" if mount.source.is_dir() else f"mkdir -p $(dirname {target}); touch {target}"
    again = [f"mount -o remount,bind,ro {target}"] if mount.is_read_only else []
    return [make, f"mount --bind {mount.source} {target}", *again]


def _pairs(environment: dict[str, str]) -> list[str]:
    return [f"{name}={value}" for name, value in environment.items()]
