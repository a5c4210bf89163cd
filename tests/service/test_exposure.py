"""Who may listen where."""

import pytest

from contracts.errors import BadSettings
from service.exposure import check_exposure, is_loopback
from service.settings import ServiceSettings
from tests.service.api_keys import Keys

LOOPBACK = ["127.0.0.1", "127.0.0.53", "127.255.255.254", "::1", "[::1]", "::ffff:127.0.0.1", "localhost", "LOCALHOST"]
ELSEWHERE = [
    "0.0.0.0",
    "::",
    "[::]",
    "",
    "0",
    "::ffff:0.0.0.0",
    "::ffff:10.0.0.1",
    "10.0.0.1",
    "128.0.0.1",
    "126.255.255.255",
    "fe80::1",
    "gateway",
    "localhost.example",
    "localhost.localdomain",
    "127.1",  # the system reads it as 127.0.0.1, and the next such notation perhaps not
    "2130706433",
    "127.0.0.1.example",
]


@pytest.mark.parametrize("host", LOOPBACK)
def test_on_loopback_no_key_is_needed(host: str) -> None:
    assert is_loopback(host)
    check_exposure(host, ServiceSettings())


@pytest.mark.parametrize("host", ELSEWHERE)
def test_elsewhere_it_is_keys_or_so_many_words(host: str) -> None:
    assert not is_loopback(host)
    with pytest.raises(BadSettings) as refused:
        check_exposure(host, ServiceSettings())
    assert "ILVR_SERVICE_API_KEYS_FILE" in str(refused.value)
    assert "ILVR_SERVICE_ALLOW_ANONYMOUS=true" in str(refused.value)
    assert "\n" not in str(refused.value)
    check_exposure(host, ServiceSettings(allow_anonymous=True))
    keys = Keys()
    keys.add("web")
    check_exposure(host, ServiceSettings(api_keys=keys.setting))


def test_keys_that_cannot_be_read_are_found_before_a_model_is_loaded() -> None:
    with pytest.raises(BadSettings, match="ILVR_SERVICE_API_KEYS: web: "):
        check_exposure("127.0.0.1", ServiceSettings(api_keys="web = 1"))
    with pytest.raises(BadSettings, match="holds no key"):
        check_exposure("127.0.0.1", ServiceSettings(api_keys="", allow_anonymous=True))


@pytest.mark.parametrize("switch", ["metrics_need_key", "docs_need_key"])
def test_a_route_behind_a_key_needs_keys(switch: str) -> None:
    with pytest.raises(ValueError, match="need keys"):
        ServiceSettings(**{switch: True})
    with pytest.raises(ValueError, match="both given"):
        ServiceSettings(api_keys="", api_keys_file="keys.toml")
