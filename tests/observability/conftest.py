"""What is exported, found out once."""

import pytest

from tests.observability.exported import Exported, our_metrics, vllm_metrics


@pytest.fixture(scope="session")
def ours() -> dict[str, Exported]:
    return our_metrics()


@pytest.fixture(scope="session")
def theirs() -> dict[str, Exported]:
    return vllm_metrics()


@pytest.fixture(scope="session")
def samples(ours: dict[str, Exported], theirs: dict[str, Exported]) -> dict[str, frozenset[str]]:
    """Labels by the name of a sample, those that Prometheus adds included."""
    found = {}
    for metric in (*ours.values(), *theirs.values()):
        for name in metric.samples:
            found[name] = metric.labels | {"job", "instance"} | ({"le"} if name.endswith("_bucket") else frozenset())
    return {**found, "up": frozenset({"job", "instance"})}
