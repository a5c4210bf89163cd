"""``ilvr runner`` as it starts, without an engine."""

from contextlib import nullcontext
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from broker.settings import BrokerSettings
from ilvr.defaults import EMBEDDED_MODEL
from ilvr.processes import runner
from model_runner.settings import RunnerSettings


@pytest.fixture(autouse=True)
def nothing_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    async def ended_at_once(*_: Any) -> int:
        return 0

    monkeypatch.setattr(runner, "bind", lambda *_, **__: None)
    monkeypatch.setattr(runner, "telemetry", lambda _: nullcontext(CollectorRegistry()))
    monkeypatch.setattr(runner, "start_engine", lambda _: None)
    monkeypatch.setattr(runner, "_run", ended_at_once)


def start(host: str) -> None:
    settings = RunnerSettings(model=EMBEDDED_MODEL, metrics_host=host)
    assert runner.run_runner(settings, BrokerSettings(), on_ready=lambda _: None) == 0


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.7", "runner.example.com", ""])
def test_pages_that_others_can_reach_are_one_warning(host: str, caplog: pytest.LogCaptureFixture) -> None:
    start(host)
    (line,) = caplog.records
    assert line.levelname == "WARNING"
    assert f"at {host or repr(host)} (--metrics-host), which ask for no key" in line.getMessage()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1"])
def test_pages_on_loopback_are_none(host: str, caplog: pytest.LogCaptureFixture) -> None:
    start(host)
    assert not caplog.records
