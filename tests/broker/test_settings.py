"""Settings of the broker: every limit has a variable, and no message shows a password."""

import pytest

from broker.limits import BrokerLimits
from broker.settings import load_settings
from contracts.errors import BadSettings


def test_every_limit_is_a_setting_with_the_same_default() -> None:
    assert load_settings().limits() == BrokerLimits()


def test_a_limit_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ILVR_BROKER_MAX_WAITING", "7")
    assert load_settings().limits().max_waiting == 7


def test_an_empty_url_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ILVR_BROKER_REDIS_URL", "")
    assert load_settings().redis_url is None


def test_a_misspelt_variable_stops_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ILVR_BROKER_REDIS_URI", "redis://127.0.0.1")
    with pytest.raises(BadSettings, match="did you mean ILVR_BROKER_REDIS_URL"):
        load_settings()


def test_no_message_holds_a_password() -> None:
    with pytest.raises(BadSettings) as caught:
        load_settings(redis_url="http://:secret@127.0.0.1")
    assert "secret" not in str(caught.value)
    settings = load_settings(redis_url="redis://:secret@127.0.0.1", redis_password="secret")
    assert "secret" not in repr(settings)
