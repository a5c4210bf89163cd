"""How compose and Kubernetes start Redis: with its data on disk, and never without a password."""

import os
import subprocess

import pytest
import yaml

from tests.deploy.tools import DEPLOY

CONFIG = "/usr/local/etc/redis/redis.conf"
SERVER = '#!/bin/sh\necho "told: $*"\ncat\n'


def of_compose():
    service = yaml.safe_load((DEPLOY / "compose.yml").read_text())["services"]["redis"]
    mounts = dict(volume.split(":")[:2] for volume in service["volumes"])
    command = [word.replace("$$", "$") for word in service["command"]]
    return command, (DEPLOY / "redis/redis.conf").read_text(), {target: name for name, target in mounts.items()}


def of_kubernetes():
    documents = {found["kind"]: found for found in yaml.safe_load_all((DEPLOY / "k8s/redis.yaml").read_text())}
    (container,) = documents["StatefulSet"]["spec"]["template"]["spec"]["containers"]
    mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    return container["command"], documents["ConfigMap"]["data"]["redis.conf"], mounts


@pytest.fixture(params=[of_compose, of_kubernetes])
def redis(request):
    """The command, the configuration, and what is mounted where."""
    return request.param()


def start(command, folder, password):
    """What a program in the place of ``redis-server`` is told, and the status."""
    program = folder / "redis-server"
    program.write_text(SERVER)
    program.chmod(0o755)
    environment = {"PATH": f"{folder}:{os.environ['PATH']}"} | ({} if password is None else {"REDISCLI_AUTH": password})
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=20)


def test_what_was_accepted_is_on_a_volume_and_read_again(redis):
    _, config, mounts = redis
    directives = dict(line.split(maxsplit=1) for line in config.splitlines() if line and not line.startswith("#"))
    assert (directives["appendonly"], directives["appendfsync"]) == ("yes", "everysec")
    assert directives["maxmemory-policy"] == "noeviction"
    assert directives["dir"] in mounts
    assert CONFIG in mounts or os.path.dirname(CONFIG) in mounts


def test_it_is_started_with_that_file_and_the_password(redis, tmp_path):
    done = start(redis[0], tmp_path, "0123abcd")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [f"told: {CONFIG} -", 'requirepass "0123abcd"']


@pytest.mark.parametrize("password", ["", None])
def test_without_a_password_it_is_not_started(password, redis, tmp_path):
    """``requirepass ""`` would let in everybody, and say nothing."""
    done = start(redis[0], tmp_path, password)
    assert done.returncode != 0
    assert done.stdout == ""
    assert "REDISCLI_AUTH" in done.stderr
