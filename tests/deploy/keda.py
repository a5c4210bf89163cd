"""The part of KEDA's ``keda.sh/v1alpha1`` that we use, as a JSON schema in which every other field is an error.

Written by hand after the CRDs of KEDA 2.16; a package with them is not to be had.
"""

from typing import Any

STRING, INTEGER = {"type": "string"}, {"type": "integer", "minimum": 0}
STRINGS = {"type": "object", "additionalProperties": STRING}


def _object(required: tuple[str, ...] = (), **properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
    }


def _list(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items, "minItems": 1}


METADATA = _object(("name",), name=STRING, namespace=STRING, labels=STRINGS, annotations=STRINGS)
SELECT = {"enum": ["Max", "Min", "Disabled"]}
POLICY = _object(
    ("type", "value", "periodSeconds"), type={"enum": ["Pods", "Percent"]}, value=INTEGER, periodSeconds=INTEGER
)
SCALING = _object(stabilizationWindowSeconds=INTEGER, selectPolicy=SELECT, policies=_list(POLICY))
# Of the scaler redis-streams, with a lag. Every value is a string.
REDIS_STREAMS = _object(
    ("address", "stream", "consumerGroup", "lagCount", "activationLagCount"),
    **dict.fromkeys(
        ("address", "stream", "consumerGroup", "lagCount", "activationLagCount", "databaseIndex", "enableTLS"), STRING
    ),
)
TRIGGER = _object(
    ("type", "metadata"),
    type={"const": "redis-streams"},
    name=STRING,
    metadata=REDIS_STREAMS,
    metricType={"enum": ["AverageValue", "Value", "Utilization"]},
    useCachedMetrics={"type": "boolean"},
    authenticationRef=_object(("name",), name=STRING, kind=STRING),
)
SPECS = {
    "ScaledObject": _object(
        ("scaleTargetRef", "triggers"),
        scaleTargetRef=_object(("name",), apiVersion=STRING, kind=STRING, name=STRING, envSourceContainerName=STRING),
        minReplicaCount=INTEGER,
        maxReplicaCount=INTEGER,
        idleReplicaCount=INTEGER,
        pollingInterval=INTEGER,
        cooldownPeriod=INTEGER,
        initialCooldownPeriod=INTEGER,
        fallback=_object(("failureThreshold", "replicas"), failureThreshold=INTEGER, replicas=INTEGER),
        advanced=_object(
            restoreToOriginalReplicaCount={"type": "boolean"},
            horizontalPodAutoscalerConfig=_object(name=STRING, behavior=_object(scaleUp=SCALING, scaleDown=SCALING)),
        ),
        triggers=_list(TRIGGER),
    ),
    "TriggerAuthentication": _object(
        ("secretTargetRef",),
        secretTargetRef=_list(_object(("parameter", "name", "key"), parameter=STRING, name=STRING, key=STRING)),
    ),
}


def schema_of(kind: str) -> dict[str, Any]:
    return _object(
        ("apiVersion", "kind", "metadata", "spec"),
        apiVersion={"const": "keda.sh/v1alpha1"},
        kind={"const": kind},
        metadata=METADATA,
        spec=SPECS[kind],
    )
