"""``make topology``: what its containers are, without an engine; and all of it, which takes minutes."""

import os
import re
import socket
import struct
import subprocess
import sys
from dataclasses import replace
from ipaddress import IPv4Address

import pytest

from tests.deploy.tools import deploy_copy
from tests.servers import ROOT
from tools.topology.composed import Mount, resolve
from tools.topology.container import start, this_machine
from tools.topology.names import Names

needs_root = pytest.mark.skipif(os.getuid() != 0, reason="namespaces with mounts and users are made by root")

PROBE = """
echo "user $(id -u):$(id -g)"
echo "first $$"
echo "processes $(ls -d /proc/[0-9]* | wc -l)"
grep -E '^(CapEff|CapBnd|NoNewPrivs)' /proc/self/status
for place in / /etc /usr/local/bin /given; do touch $place/x 2>/dev/null && echo "writable $place"; done
for place in /tmp /data; do touch $place/x && echo "writable $place"; done
echo "variables $(env | cut -d= -f1 | sort | tr '\\n' ' ')"
echo "interfaces $(ls /sys/class/net | tr '\\n' ' ')"
cat /etc/resolv.conf
exit 7
"""


@pytest.fixture(scope="module")
def containers(tmp_path_factory):
    folder = tmp_path_factory.mktemp("topology")
    return {one.name: one for one in resolve(deploy_copy(folder), folder / "volumes")}


def test_the_compose_file_is_read_as_docker_compose_resolves_it(containers):
    gateway, runner, redis = containers["gateway-2"], containers["runner-1"], containers["redis-1"]
    assert gateway.command == ["ilvr", "gateway", "--host", "0.0.0.0", "--port", "8000"]
    assert gateway.user == "10001:10001"
    assert gateway.is_read_only
    assert gateway.drops_all
    assert gateway.no_new_privileges
    assert gateway.environment["ILVR_BROKER_REDIS_PASSWORD"] == "0123456789abcdef"
    assert (gateway.stop_grace_s, containers["proxy-1"].stop_signal) == (45.0, "SIGUSR1")
    assert {mount.target: mount.is_read_only for mount in runner.mounts} == {"/models": True, "/var/cache/ilvr": False}
    assert (runner.has_init, gateway.has_init) == (True, False)
    # A dollar that compose does not replace is one dollar.
    assert 'requirepass "$REDISCLI_AUTH"' in redis.command[2]


def test_each_comes_after_all_that_it_needs(containers):
    order = [container.service for container in containers.values()]
    for container in containers.values():
        assert all(order.index(need) < order.index(container.service) for need in container.needs)
    assert order.count("gateway") == 2


@needs_root
def test_a_container_is_its_user_on_a_read_only_root_with_nothing_but_what_it_was_given(containers, tmp_path):
    tmp_path.chmod(0o755)
    (tmp_path / "data").mkdir(mode=0o777)
    (tmp_path / "data").chmod(0o777)
    (tmp_path / "given").mkdir()
    probe = replace(
        containers["gateway-1"],
        command=["sh", "-c", PROBE],
        environment={"ONE": "1"},
        mounts=[
            Mount(source=tmp_path / "data", target="/data", is_read_only=False),
            Mount(source=tmp_path / "given", target="/given", is_read_only=True),
        ],
    )
    running = start(probe, this_machine(), tmp_path / "probe", "192.0.2.1", lambda container, pid: None)
    assert running.process.wait(timeout=30) == 7, running.text()
    said = running.text()
    assert "user 10001:10001\nfirst 1\n" in said
    assert int(re.search(r"processes (\d+)", said)[1]) < 5
    assert re.findall(r"(?:CapEff|CapBnd):\s(\w+)", said) == ["0" * 16, "0" * 16]
    assert "NoNewPrivs:\t1" in said
    assert re.findall(r"writable (.*)", said) == ["/tmp", "/data"]
    assert re.search(r"variables (.*)", said)[1].split() == ["HOME", "ONE", "PATH", "PWD"]
    assert "nameserver 192.0.2.1" in said
    assert (tmp_path / "data/x").exists()


def processes_of(namespace):
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            found += [name] if os.readlink(f"/proc/{name}/ns/pid") == namespace else []
        except OSError:
            continue  # it has ended meanwhile
    return found


@needs_root
def test_its_processes_end_with_it(containers, tmp_path):
    tmp_path.chmod(0o755)
    probe = replace(containers["gateway-1"], command=["sh", "-c", "sleep 1000 & sleep 1000"], mounts=[])
    running = start(probe, this_machine(), tmp_path / "probe", "192.0.2.1", lambda container, pid: None)
    namespace = os.readlink(f"/proc/{running.pid}/ns/pid")
    assert namespace != os.readlink("/proc/self/ns/pid")
    assert str(running.pid) in processes_of(namespace)
    running.kill()
    assert processes_of(namespace) == []


def asked(names, name, asker, kind=1):
    query = b"\x12\x34" + struct.pack("!5H", 0x0100, 1, 0, 0, 0)
    query += b"".join(bytes([len(label)]) + label.encode() for label in name.split(".")) + b"\0"
    answer = names.answer(query + struct.pack("!2H", kind, 1), IPv4Address(asker))
    ident, flags, _, num_answers, _, _ = struct.unpack("!6H", answer[:12])
    assert ident == 0x1234
    end = len(answer) - 16 * num_answers
    return flags & 0xF, sorted(socket.inet_ntoa(answer[end + 16 * n + 12 :][:4]) for n in range(num_answers))


def test_names_are_answered_as_docker_does():
    names = Names()
    names.add("gateway-1", "gateway", {"edge": IPv4Address("192.0.2.2"), "fleet": IPv4Address("192.0.2.66")})
    names.add("gateway-2", "gateway", {"edge": IPv4Address("192.0.2.3"), "fleet": IPv4Address("192.0.2.67")})
    names.add("redis-1", "redis", {"fleet": IPv4Address("192.0.2.68")})
    names.add("proxy-1", "proxy", {"edge": IPv4Address("192.0.2.4")})
    assert asked(names, "gateway", "192.0.2.4") == (0, ["192.0.2.2", "192.0.2.3"])
    # Asked by the address of another network of its.
    assert asked(names, "redis", "192.0.2.2") == (0, ["192.0.2.68"])
    # Not on a network of the proxy's, and no such name.
    assert asked(names, "redis", "192.0.2.4") == (3, [])
    assert asked(names, "elsewhere.example", "192.0.2.4") == (3, [])
    assert asked(names, "gateway", "192.0.2.4", kind=28) == (0, [])
    names.remove("gateway-2")
    assert asked(names, "gateway", "192.0.2.4") == (0, ["192.0.2.2"])


@pytest.mark.slow
@pytest.mark.timeout(900)
@needs_root
def test_all_of_it_starts_answers_and_stops():
    done = subprocess.run(
        [sys.executable, "-m", "tools.topology"], cwd=ROOT, capture_output=True, text=True, timeout=800
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "went well" in done.stdout
