"""``.env.example`` and the settings, both ways."""

import os
import re

import yaml

from broker import settings as broker
from broker.settings import BrokerSettings
from contracts import logs
from ilvr import tracing
from model_runner import settings as model_runner
from model_runner.settings import RunnerSettings
from service import settings as service
from service.settings import ServiceSettings
from tests.deploy.tools import DEPLOY
from tests.servers import ROOT
from tools import env_example

LINE = re.compile(r"^#?([A-Z][A-Z0-9_]*)=(.*)$", re.MULTILINE)
OF_COMPOSE = re.compile(r"(?<!\$)\$\{(\w+)")


def written():
    return LINE.findall((DEPLOY / ".env.example").read_text())


def everything():
    return ServiceSettings(), RunnerSettings(model="m"), BrokerSettings(), logs.log_settings()


def of_compose():
    text = "".join((DEPLOY / name).read_text() for name in ("compose.yml", "compose.gpu.yml"))
    return set(OF_COMPOSE.findall(text)) | {"COMPOSE_PROJECT_NAME"}


def test_it_is_what_the_tool_prints():
    assert (DEPLOY / ".env.example").read_text() == env_example.text(), (
        "settings have changed: python -m tools.env_example > deploy/.env.example"
    )


def test_every_variable_is_a_setting_or_composes_own_and_none_is_missing():
    names = [name for name, _ in written()]
    assert len(set(names)) == len(names)
    settings = {name for settings in env_example.SECTIONS.values() for name in settings}
    assert set(names) == settings | of_compose() | {tracing.ENDPOINTS[0]}


def test_every_settings_class_of_the_project_is_in_it():
    """Found in the source, so that a new one cannot be forgotten."""
    found = set()
    for package in ("broker", "service", "model_runner", "ilvr", "contracts"):
        for file in (ROOT / package).rglob("*.py"):
            found |= set(re.findall(r"refuse_unknown_variables\(PREFIX, (\w+)\.", file.read_text()))
    assert found == {"ServiceSettings", "RunnerSettings", "BrokerSettings", "LogSettings"}
    prefixes = {re.match(r"ILVR_[A-Z]+_", name)[0] for settings in env_example.SECTIONS.values() for name in settings}
    assert prefixes == {service.PREFIX, model_runner.PREFIX, broker.PREFIX, logs.PREFIX}


def test_the_defaults_that_it_shows_are_accepted_and_are_the_defaults(monkeypatch):
    """Each line uncommented: the settings must come out as without it."""
    for name in list(os.environ):
        if name.startswith("ILVR_"):
            monkeypatch.delenv(name)
    bare = everything()
    for name, value in written():
        if value and name not in of_compose():
            monkeypatch.setenv(name, value)
    assert everything() == bare


def test_what_compose_sets_itself_is_said_to_be_set_by_it():
    services = yaml.safe_load((DEPLOY / "compose.yml").read_text())["services"]
    told = {name for service in ("gateway", "runner") for name in services[service]["environment"]}
    assert told == env_example.SET_BY_COMPOSE | env_example.FILLED_IN
