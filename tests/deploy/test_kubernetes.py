"""The manifests of Kubernetes, by their schemas and by each other. They were never applied to a cluster."""

import copy
import os
import re
from pathlib import Path

import jsonschema
import kubernetes_validate
import pytest
import yaml

from broker import settings as broker
from broker.redis.keys import Keys
from model_runner import settings as model_runner
from service import settings as service
from tests.deploy.keda import schema_of
from tests.deploy.tools import DEPLOY
from tests.servers import ROOT

FOLDER = DEPLOY / "k8s"
VERSIONS = ("1.30", "1.37")
MARGIN_S = 10.0


def documents(path):
    return list(yaml.safe_load_all(path.read_text()))


ALL = {
    f"{path.relative_to(FOLDER)}:{found['kind']}:{found['metadata']['name']}": found
    for path in sorted(FOLDER.rglob("*.yaml"))
    for found in documents(path)
}
PODS = {name: found for name, found in ALL.items() if found["kind"] in ("Deployment", "StatefulSet")}


def validate(document, version):
    if document["apiVersion"].startswith("keda.sh/"):
        jsonschema.validate(document, schema_of(document["kind"]))
    else:
        kubernetes_validate.validate(document, version, strict=True)


def fault(document, version):
    """What the check says, or nothing."""
    try:
        validate(document, version)
    except (kubernetes_validate.ValidationError, jsonschema.ValidationError) as error:
        return error.message
    return None


def only(kind, name, folder="."):
    (found,) = [
        document
        for key, document in ALL.items()
        if document["kind"] == kind
        and document["metadata"]["name"] == name
        and str(Path(key.split(":")[0]).parent) == folder
    ]
    return found


def pod_of(document):
    return document["spec"]["template"]["spec"]


def labels_of(document):
    return document["spec"]["template"]["metadata"]["labels"]


def settings_of(*names):
    return {key: value for name in names for key, value in only("ConfigMap", name)["data"].items()}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", ALL)
def test_every_manifest_is_what_its_schema_says(name, version):
    assert fault(ALL[name], version) is None


OF_USERS = ("labels", "matchLabels", "annotations", "data", "stringData", "requests", "limits", "selector")


def places(document, path=()):
    """Of every object in it whose names are a schema's, not a user's. Of a selector of labels, what is below."""
    if isinstance(document, dict):
        if (
            document
            and path
            and not (path[-1] in OF_USERS and all(isinstance(v, str | int) for v in document.values()))
        ):
            yield path
        for key, value in document.items():
            yield from places(value, (*path, key))
    elif isinstance(document, list):
        for index, value in enumerate(document):
            yield from places(value, (*path, index))


@pytest.mark.parametrize("name", ALL)
def test_the_check_notices_a_misspelt_field_anywhere(name):
    """In every object of every manifest one name is given a letter too many."""
    found = list(places(ALL[name]))
    unnoticed = []
    for place in found:
        changed = copy.deepcopy(ALL[name])
        there = _at(changed, place)
        key = sorted(there)[0]
        there[f"{key}x"] = there.pop(key)
        if fault(changed, VERSIONS[-1]) is None:
            unnoticed.append((*place, key))
    assert found
    assert unnoticed == []


def _at(document, place):
    for step in place:
        document = document[step]
    return document


def test_every_pod_is_hardened_as_the_namespace_demands():
    assert only("Namespace", "ilvr")["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    for name, document in PODS.items():
        pod = pod_of(document)
        assert pod["automountServiceAccountToken"] is False, name
        assert pod["securityContext"]["runAsNonRoot"] is True, name
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        for container in pod["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }, name
            assert "memory" in container["resources"]["limits"], name


def test_users_and_images_are_those_of_the_compose_file():
    services = yaml.safe_load((DEPLOY / "compose.yml").read_text())["services"]
    for name in ("gateway", "runner", "redis"):
        document = only("StatefulSet" if name == "redis" else "Deployment", name)
        security = pod_of(document)["securityContext"]
        assert f"{security['runAsUser']}:{security['runAsGroup']}" == services[name]["user"]
        image = re.sub(r"\$\{ILVR_VERSION:-(.*)\}", r"\1", services[name]["image"])
        (container,) = pod_of(document)["containers"]
        assert container["image"] == image
        if name != "redis":
            assert container["args"] == services[name]["command"]


@pytest.mark.parametrize("name", [name for name in PODS if "redis" not in name])
def test_each_is_probed_where_it_answers(name):
    (container,) = pod_of(PODS[name])["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    pages = {probe: container[f"{probe}Probe"]["httpGet"] for probe in ("startup", "liveness", "readiness")}
    assert {probe: page["path"] for probe, page in pages.items()} == {
        "startup": "/healthz",
        "liveness": "/healthz",
        "readiness": "/readyz",
    }
    expected = 8000 if "gateway" in name else int(settings_of("ilvr-runner")["ILVR_RUNNER_METRICS_PORT"])
    assert {ports[page["port"]] for page in pages.values()} == {expected}


def test_pods_are_killed_only_after_they_could_drain():
    gateway = only("Deployment", "gateway")
    told = settings_of("ilvr-gateway")
    (container,) = pod_of(gateway)["containers"]
    command, seconds = container["lifecycle"]["preStop"]["exec"]["command"]
    assert command == "sleep"
    drain_s = float(told["ILVR_SERVICE_DRAIN_DELAY_S"]) + float(told["ILVR_SERVICE_DRAIN_GRACE_S"])
    assert pod_of(gateway)["terminationGracePeriodSeconds"] >= float(seconds) + drain_s + MARGIN_S
    drain_s = float(settings_of("ilvr-runner")["ILVR_RUNNER_DRAIN_GRACE_S"])
    for folder in (".", "gpu"):
        grace_s = pod_of(only("Deployment", "runner", folder))["terminationGracePeriodSeconds"]
        assert grace_s >= drain_s + MARGIN_S


def test_the_settings_are_accepted(monkeypatch):
    for name in list(os.environ):
        if name.startswith("ILVR_"):
            monkeypatch.delenv(name)
    for name, value in settings_of("ilvr-settings", "ilvr-gateway", "ilvr-runner").items():
        monkeypatch.setenv(name, value)
    assert service.load_settings().asks_for_keys
    assert broker.load_settings().redis_url == "redis://redis:6379/0"
    assert model_runner.load_settings().metrics_host == "0.0.0.0"


def test_selectors_select_what_is_there():
    labels = [labels_of(document) for document in PODS.values()]
    for name, document in ALL.items():
        spec = document.get("spec", {})
        selector = {
            "Service": lambda spec: spec["selector"],
            "PodDisruptionBudget": lambda spec: spec["selector"]["matchLabels"],
            "NetworkPolicy": lambda spec: spec["podSelector"].get("matchLabels", {}),
            "Deployment": lambda spec: spec["selector"]["matchLabels"],
            "StatefulSet": lambda spec: spec["selector"]["matchLabels"],
        }.get(document["kind"])
        if selector:
            assert any(selector(spec).items() <= found.items() for found in labels), name


def test_gateways_and_runners_have_a_budget_for_disruptions():
    assert {document["metadata"]["name"] for document in ALL.values() if document["kind"] == "PodDisruptionBudget"} == {
        "gateway",
        "runner",
    }


def test_everything_is_denied_but_what_is_allowed():
    deny = only("NetworkPolicy", "deny-all")["spec"]
    assert deny == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    (rule,) = only("NetworkPolicy", "redis")["spec"]["ingress"]
    pods, namespace = rule["from"]
    assert pods["podSelector"]["matchExpressions"][0]["values"] == ["gateway", "runner"]
    assert namespace == {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "keda"}}}


def test_redis_is_told_the_same_as_under_compose():
    def directives(text):
        return [line for line in text.splitlines() if line and not line.startswith("#")]

    told = only("ConfigMap", "redis")["data"]["redis.conf"]
    assert directives(told) == directives((DEPLOY / "redis/redis.conf").read_text())


def test_scaling_reads_the_stream_and_the_group_of_the_broker():
    spec = only("ScaledObject", "runner", "keda")["spec"]
    assert spec["scaleTargetRef"] == {"name": only("Deployment", "runner")["metadata"]["name"]}
    (trigger,) = spec["triggers"]
    prefix = broker.BrokerSettings.model_fields["key_prefix"].default
    assert trigger["metadata"]["stream"] == Keys(prefix).jobs
    (group,) = re.findall(r"^local GROUP = '(\w+)'", (ROOT / "broker/redis/lua/queue.lua").read_text(), re.MULTILINE)
    assert trigger["metadata"]["consumerGroup"] == group
    assert "replicas" not in only("Deployment", "runner")["spec"]  # or each apply would undo the scaling


def test_the_gpu_runner_is_the_other_one_with_a_gpu():
    cpu, gpu = only("Deployment", "runner"), only("Deployment", "runner", "gpu")
    assert cpu["metadata"] == gpu["metadata"]
    (of_cpu,), (of_gpu,) = pod_of(cpu)["containers"], pod_of(gpu)["containers"]
    assert {key for key in of_gpu if of_gpu[key] != of_cpu.get(key)} == {"image", "env", "resources", "volumeMounts"}
    assert of_gpu["resources"]["limits"]["nvidia.com/gpu"] == 1


def test_no_secret_is_kept_here():
    (secret,) = [document for document in ALL.values() if document["kind"] == "Secret"]
    assert set(secret["stringData"].values()) == {""}
    used = {
        (source["name"], source["key"])
        for document in PODS.values()
        for container in pod_of(document)["containers"]
        for variable in container.get("env", [])
        if (source := variable.get("valueFrom", {}).get("secretKeyRef"))
    }
    assert used == {("ilvr", "redis-password")}
    assert "redis-password" in secret["stringData"]


def test_uploads_fit_into_memory_and_into_tmp():
    """As under compose; a pod that fills /tmp is evicted."""
    pod = pod_of(only("Deployment", "gateway"))
    (tmp,) = [volume["emptyDir"]["sizeLimit"] for volume in pod["volumes"] if volume["name"] == "tmp"]
    uploads = int(settings_of("ilvr-gateway")["ILVR_SERVICE_MAX_INTAKE_BYTES"])
    memory = pod["containers"][0]["resources"]["limits"]["memory"]
    assert uploads <= int(tmp.removesuffix("Mi")) << 20
    assert 4 * uploads + (128 << 20) <= int(memory.removesuffix("Gi")) << 30
