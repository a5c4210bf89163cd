"""The dashboard is valid, and asks only for what is exported."""

import json
import re
from itertools import combinations
from typing import Any

import pytest
import yaml

from tests.observability.queries import faults, parse
from tests.servers import ROOT

GRAFANA = ROOT / "deploy" / "grafana"
DASHBOARD = json.loads((GRAFANA / "dashboards" / "ilvr.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
QUERIES = [(panel["title"], target["expr"], target["legendFormat"]) for panel in PANELS for target in panel["targets"]]


@pytest.mark.parametrize(
    ("title", "query", "legend"), QUERIES, ids=[f"{title}: {query}" for title, query, _ in QUERIES]
)
def test_every_query_names_what_is_exported(
    title: str, query: str, legend: str, samples: dict[str, frozenset[str]]
) -> None:
    assert faults(query, samples) == []
    for label in re.findall(r"{{(\w+)}}", legend):  # or the legend would be empty
        aggregated = re.findall(r"\bby \(([^)]*)\)", query)
        assert label in (aggregated[0] if aggregated else "job, instance")


def test_what_such_a_test_must_notice(samples: dict[str, frozenset[str]]) -> None:
    assert faults('sum(rate(ilvr_gateway_requests_total{outcome="ok"}[5m]))', samples) != []
    assert faults('ilvr_gateway_runners{status="ready"}', samples) != []
    assert faults("sum by (state) (ilvr_gateway_responses_waiting)", samples) != []
    assert faults("ilvr_gateway_queue_seconds", samples) != []  # a histogram has no sample of its own name
    with pytest.raises(ValueError, match=r"."):
        parse("sum(rate(up[5m])")


def test_panels_have_places_of_their_own() -> None:
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])

    def overlap(one: dict[str, Any], other: dict[str, Any]) -> bool:
        a, b = one["gridPos"], other["gridPos"]
        return (
            a["x"] < b["x"] + b["w"]
            and b["x"] < a["x"] + a["w"]
            and a["y"] < b["y"] + b["h"]
            and b["y"] < a["y"] + a["h"]
        )

    assert not any(overlap(one, other) for one, other in combinations(DASHBOARD["panels"], 2))
    assert all(panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24 for panel in DASHBOARD["panels"])


def test_it_is_provisioned_with_its_data_source() -> None:
    (source,) = yaml.safe_load((GRAFANA / "provisioning" / "datasources" / "prometheus.yml").read_text())["datasources"]
    (provider,) = yaml.safe_load((GRAFANA / "provisioning" / "dashboards" / "ilvr.yml").read_text())["providers"]
    used = {panel["datasource"]["uid"] for panel in PANELS}
    used |= {target["datasource"]["uid"] for panel in PANELS for target in panel["targets"]}
    assert used == {source["uid"]}
    assert provider["options"]["path"] == "/etc/grafana/dashboards"  # where compose.yml mounts the folder
