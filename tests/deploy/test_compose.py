"""The compose files, as ``docker-compose config`` resolves them. Nothing is started here: see test_topology.py."""

import ast
import re
from datetime import timedelta

import pytest
import yaml

from model_runner.settings import RunnerSettings
from service.settings import ServiceSettings
from tests.deploy.tools import DEPLOY, SECRETS, deploy_copy, filled_in, run
from tests.servers import ROOT

FILES = {"cpu": ("compose.yml",), "gpu": ("compose.yml", "compose.gpu.yml")}
HARDENED = {"read_only": True, "cap_drop": ["ALL"], "security_opt": ["no-new-privileges:true"]}
PINNED = re.compile(r"[\w./-]+:v?\d+\.\d+\.\d+(-[\w.]+)?")
DRAIN_MARGIN_S = 10.0
UNITS = {"s": "seconds", "m": "minutes", "h": "hours"}


def options(kind):
    return [word for name in FILES[kind] for word in ("-f", name)]


def resolved(folder, kind="cpu"):
    done = run("docker-compose", *options(kind), "config", folder=folder)
    assert done.returncode == 0, done.stderr
    return yaml.safe_load(done.stdout)["services"]


@pytest.fixture(scope="module", params=FILES)
def services(request, tmp_path_factory):
    return resolved(deploy_copy(tmp_path_factory.mktemp("compose")), request.param)


@pytest.fixture(scope="module")
def written():
    return yaml.safe_load((DEPLOY / "compose.yml").read_text())


def seconds(text):
    parts = {UNITS[unit]: float(number) for number, unit in re.findall(r"([\d.]+)([smh])", text)}
    return timedelta(**parts).total_seconds()


def test_the_linter_finds_nothing():
    done = run("dclint", "-c", ".dclintrc.yaml", "compose.yml", "compose.gpu.yml", folder=DEPLOY)
    assert done.returncode == 0, done.stdout


def test_the_linter_would_find_a_key_that_stands_twice(tmp_path):
    copy = deploy_copy(tmp_path)
    with (copy / "compose.yml").open("a") as file:
        file.write("\nvolumes: {}\n")
    assert run("dclint", "-c", ".dclintrc.yaml", "compose.yml", folder=copy).returncode != 0


@pytest.mark.parametrize("name", SECRETS)
def test_without_a_secret_it_refuses_and_names_it(name, tmp_path):
    copy = deploy_copy(tmp_path, environment=filled_in(leave_out=name))
    done = run("docker-compose", "config", folder=copy)
    assert done.returncode != 0
    assert name in done.stderr
    assert SECRETS[name].partition("=")[2] not in done.stdout


def test_the_secrets_stand_in_no_file_that_is_kept():
    ignored = (ROOT / ".gitignore").read_text().splitlines()
    assert {"/deploy/.env", "/deploy/secrets/"} <= set(ignored)


def test_every_container_is_hardened_and_bounded(services):
    assert set(services) == {"gateway", "runner", "proxy", "redis", "prometheus", "grafana"}
    for name, service in services.items():
        assert {key: service.get(key) for key in HARDENED} == HARDENED, name
        assert not service["user"].startswith(("0", "root")), name
        limits = service["deploy"]["resources"]["limits"]
        assert set(limits) == {"cpus", "memory"}, name
        assert service["pids_limit"] > 0, name
        assert service["healthcheck"]["test"][0] in ("CMD", "CMD-SHELL"), name
        assert PINNED.fullmatch(service["image"]), service["image"]


def test_what_is_published_is_on_loopback(services):
    ports = [port for service in services.values() for port in service.get("ports", [])]
    assert len(ports) == 3
    assert all(str(port).startswith("127.0.0.1:") for port in ports)


def test_two_gateways_start_after_redis_and_before_the_proxy(services):
    assert services["gateway"]["deploy"]["replicas"] == 2
    for name, other in (("gateway", "redis"), ("runner", "redis"), ("proxy", "gateway"), ("grafana", "prometheus")):
        assert services[name]["depends_on"] == {other: {"condition": "service_healthy"}}


def test_redis_is_reached_by_gateways_and_runners_alone(services, written):
    beside = {name for name, service in services.items() if "fleet" in service["networks"]}
    assert beside == {"gateway", "runner", "redis", "prometheus"}
    assert list(services["redis"]["networks"]) == ["fleet"]
    assert written["networks"]["fleet"] == {"internal": True}


def test_docker_waits_for_longer_than_draining_takes(services):
    delay_s = float(services["gateway"]["environment"]["ILVR_SERVICE_DRAIN_DELAY_S"])
    drains_s = {
        "gateway": delay_s + ServiceSettings.model_fields["drain_grace_s"].default,
        "runner": RunnerSettings.model_fields["drain_grace_s"].default,
    }
    for name, drain_s in drains_s.items():
        assert seconds(services[name]["stop_grace_period"]) >= drain_s + DRAIN_MARGIN_S


def test_the_proxy_waits_for_longer_than_an_answer_may_take(services):
    config = (DEPLOY / "proxy/haproxy.cfg").read_text()
    waits_s = float(re.search(r"timeout server (\d+)s", config)[1])
    assert waits_s > ServiceSettings.model_fields["max_timeout_s"].default
    # It gives up on what drains only after the gateways have.
    hard_stop_s = float(re.search(r"hard-stop-after (\d+)s", config)[1])
    assert seconds(services["gateway"]["stop_grace_period"]) < hard_stop_s
    assert hard_stop_s < seconds(services["proxy"]["stop_grace_period"])


def test_the_proxy_sees_a_gateway_drain_before_its_port_closes(services):
    config = (DEPLOY / "proxy/haproxy.cfg").read_text()
    (said,) = re.findall(r'http-check expect ! string "(.*)"', config)
    assert said in (ROOT / "service/routes/health.py").read_text()
    inter_s, fall = map(int, re.search(r"inter (\d+)s fall (\d+)", config).groups())
    assert float(services["gateway"]["environment"]["ILVR_SERVICE_DRAIN_DELAY_S"]) > inter_s * fall


def test_haproxy_accepts_its_file_without_a_warning():
    done = run("haproxy", "-c", "-f", str(DEPLOY / "proxy/haproxy.cfg"))
    assert done.returncode == 0
    assert "WARNING" not in done.stderr


def in_order(service):
    """Of two files docker-compose gives the same lists in another order."""
    return service | {key: sorted(service[key]) for key in ("networks", "volumes") if key in service}


def test_the_gpu_runner_has_a_gpu_and_all_else_as_before(tmp_path):
    copy = deploy_copy(tmp_path)
    before, after = resolved(copy, "cpu"), resolved(copy, "gpu")
    (device,) = after["runner"]["deploy"]["resources"]["reservations"]["devices"]
    assert device == {"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}
    assert after["runner"]["build"]["target"] == "runner-cuda"
    assert {name for name in before if in_order(before[name]) != in_order(after[name])} == {"runner"}


def test_health_checks_and_commands_are_those_of_the_images(written):
    """An image that runs without compose is watched and started in the same way."""
    stages = re.split(r"^FROM ", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)
    for service, stage in (("gateway", "base AS gateway\n"), ("runner", "base AS runner\n")):
        (text,) = [part for part in stages if part.startswith(stage)]
        check = re.search(r"HEALTHCHECK (?P<options>[^\\]*)\\\n\s+CMD (?P<test>\[.*\])", text)
        compose = written["services"][service]["healthcheck"]
        assert compose["test"] == ["CMD", *ast.literal_eval(check["test"])]
        told = dict(re.findall(r"--([\w-]+)=(\w+)", check["options"]))
        assert told == {
            "interval": compose["interval"],
            "timeout": compose["timeout"],
            "start-period": compose["start_period"],
            "retries": str(compose["retries"]),
        }
        command = re.search(r"^CMD (\[.*\])", text, flags=re.MULTILINE)
        assert written["services"][service]["command"] == ast.literal_eval(command[1])


def test_uploads_fit_into_memory_and_into_tmp(services):
    """Nine JSON bodies of 27 MB at once took the process from 73 to 980 MiB: four times their size, and what it is."""
    gateway = services["gateway"]
    uploads = int(gateway["environment"]["ILVR_SERVICE_MAX_INTAKE_BYTES"])
    (tmp,) = gateway["tmpfs"]
    tmp_bytes = int(re.fullmatch(r"/tmp:size=(\d+)m", tmp)[1]) << 20
    assert uploads <= tmp_bytes
    memory = gateway["deploy"]["resources"]["limits"]["memory"]
    assert 4 * uploads + tmp_bytes + (128 << 20) <= int(memory.removesuffix("g")) << 30
