"""promtool accepts the configuration, every alert fires in its case and in no other, and asks for what is exported.

promtool comes with Debian's package prometheus, which tools/setup.sh installs. Without it these tests fail.
"""

import re
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.observability.queries import faults
from tests.servers import ROOT

PROMETHEUS = ROOT / "deploy" / "prometheus"
CASES = ROOT / "tests" / "observability" / "alerts_test.yml"
RULES = [rule for group in yaml.safe_load((PROMETHEUS / "alerts.yml").read_text())["groups"] for rule in group["rules"]]
NAMES = [rule["alert"] for rule in RULES]


def promtool(*args: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["promtool", *map(str, args)], capture_output=True, text=True, timeout=60)


def test_configuration_and_rules_are_accepted() -> None:
    for told in (
        promtool("check", "config", PROMETHEUS / "prometheus.yml"),
        promtool("check", "rules", "--lint=all", "--lint-fatal", PROMETHEUS / "alerts.yml"),
    ):
        assert told.returncode == 0, told.stdout + told.stderr


def test_every_alert_fires_in_its_case_and_only_then() -> None:
    told = promtool("test", "rules", CASES)
    assert told.returncode == 0, told.stdout + told.stderr


def test_every_alert_has_both_cases() -> None:
    expected = [one for case in yaml.safe_load(CASES.read_text())["tests"] for one in case["alert_rule_test"]]
    assert {one["alertname"] for one in expected if one.get("exp_alerts")} == set(NAMES)
    assert {one["alertname"] for one in expected if not one.get("exp_alerts")} == set(NAMES)


@pytest.mark.parametrize("expr", ["vector(1)", "vector(0) > 0"], ids=["always", "never"])
def test_the_cases_notice_alerts_that_are_wrong(expr: str, tmp_path: Path) -> None:
    wrong = [{**rule, "expr": expr} for rule in RULES]
    (tmp_path / "alerts.yml").write_text(yaml.safe_dump({"groups": [{"name": "wrong", "rules": wrong}]}))
    cases = CASES.read_text().replace("../../deploy/prometheus/alerts.yml", "alerts.yml")
    (tmp_path / "cases.yml").write_text(cases)
    told = promtool("test", "rules", tmp_path / "cases.yml")
    assert told.returncode == 1
    noticed = set(re.findall(r"alertname: ?(\w+)", told.stdout + told.stderr))
    assert noticed == set(NAMES)


@pytest.mark.parametrize("rule", RULES, ids=NAMES)
def test_alerts_ask_for_what_is_exported(rule: dict[str, str], samples: dict[str, frozenset[str]]) -> None:
    assert faults(rule["expr"], samples) == []


def test_an_operator_is_told_what_and_what_to_do() -> None:
    for rule in RULES:
        assert set(rule["annotations"]) == {"summary", "action"}
        assert rule["labels"]["severity"] in ("warning", "critical")
