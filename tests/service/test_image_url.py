"""What a URL says, and whether the operator allows it."""

import pytest

from contracts.errors import BadSettings, UrlNotAllowed
from service.image_url import read_image_url
from service.settings import ServiceSettings, load_settings

SETTINGS = ServiceSettings(image_url_hosts=("images.example.com", "*.cdn.example.org", "bücher.example"))
HTTP_TOO = SETTINGS.model_copy(update={"image_url_http": True, "image_url_ports": (443, 80, 8443)})


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("https://images.example.com/a.png", "https://images.example.com/a.png"),
        ("HTTPS://Images.EXAMPLE.com", "https://images.example.com/"),
        ("https://images.example.com.:443/a?b=c&d#e", "https://images.example.com/a?b=c&d"),
        ("https://images.example.com?x", "https://images.example.com/?x"),
        ("https://a.b.cdn.example.org/x%20y/ü", "https://a.b.cdn.example.org/x%20y/%C3%BC"),
        ("https://BÜCHER.example/", "https://xn--bcher-kva.example/"),
        ("https://xn--bcher-kva.example/", "https://xn--bcher-kva.example/"),
        ("https://ｉmages。example。com/", "https://images.example.com/"),
        ("https://images.example.com:80/", "https://images.example.com:80/"),
        ("https://images.example.com//evil.example/", "https://images.example.com//evil.example/"),
        ("https://images.example.com/a@b", "https://images.example.com/a@b"),
    ],
)
def test_allowed(text: str, read: str) -> None:
    assert str(read_image_url(text, SETTINGS)) == read


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "images.example.com/a.png",
        "//images.example.com/a.png",
        "http://images.example.com/",
        "ftp://images.example.com/",
        "file:///etc/passwd",
        "file://images.example.com/etc/passwd",
        "gopher://images.example.com/",
        "data:image/png;base64,AAAA",
        "https:images.example.com",
        "https:///images.example.com",
        "https://",
        "https://evil.example/",
        "https://images.example.com.evil.example/",
        "https://evilimages.example.com/",
        "https://cdn.example.org/",
        "https://evilcdn.example.org/",
        "https://.cdn.example.org/",
        "https://a..cdn.example.org/",
        "https://user@images.example.com/",
        "https://user:password@images.example.com/",
        "https://@images.example.com/",
        "https://images.example.com@evil.example/",
        "https://evil.example#@images.example.com/",
        "https://evil.example\\@images.example.com/",
        "https://evil.example\\.images.example.com/",
        "https://images.example.com\\.evil.example/",
        "https://images.example.com /",
        " https://images.example.com/",
        "https://images.example.com/\r\nX-Evil: 1",
        "https://images.example.com/\ta",
        "https://images.example.com/\x00",
        "https://images.example.com\n.evil.example/",
        "https://im%61ges.example.com/",
        "https://images.example.com%2eevil.example/",
        "https://images.example.com:22/",
        "https://images.example.com:8443/",
        "https://images.example.com:99999/",
        "https://images.example.com:-443/",
        "https://images.example.com:443:80/",
        "https://images.example.com:x/",
        "https://images.example.com:٤٤٣/",
        "https://127.0.0.1/",
        "https://127.1/",
        "https://0x7f.1/",
        "https://0x7f000001/",
        "https://2130706433/",
        "https://017700000001/",
        "https://0/",
        "https://①②⑦.0.0.1/",
        "https://127。0。0。1/",
        "https://[::1]/",
        "https://[::ffff:127.0.0.1]/",
        "https://[fe80::1%25eth0]/",
        "https://[::1/",
        "https://[images.example.com]/",
        "https://localhost/",
        "https://metadata/",
        "https://169.254.169.254.cdn.example.org./latest/" + "a" * 2048,
        "https://images.example.com℀.evil.example/",
        "https://xn--a.example/",
        "https://-.example/",
    ],
)
def test_not_allowed(text: str) -> None:
    with pytest.raises(UrlNotAllowed) as refused:
        read_image_url(text, SETTINGS)
    assert "passw" not in str(refused.value).replace("or password is", "")  # nothing of the URL is repeated
    assert "evil" not in str(refused.value)


def test_what_else_the_operator_may_allow() -> None:
    assert str(read_image_url("http://images.example.com/", HTTP_TOO)) == "http://images.example.com/"
    assert str(read_image_url("https://images.example.com:8443/", HTTP_TOO)) == "https://images.example.com:8443/"
    assert read_image_url("http://images.example.com/", HTTP_TOO).port == 80
    with pytest.raises(UrlNotAllowed):
        read_image_url("http://evil.example/", HTTP_TOO)


def test_nothing_is_allowed_by_default() -> None:
    with pytest.raises(UrlNotAllowed):
        read_image_url("https://images.example.com/", ServiceSettings())


def test_the_list_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ILVR_SERVICE_IMAGE_URL_HOSTS", " Images.example.com., *.CDN.example.org,,")
    monkeypatch.setenv("ILVR_SERVICE_IMAGE_URL_PORTS", "443, 8443")
    settings = load_settings()
    assert settings.image_url_hosts == ("images.example.com", "*.cdn.example.org")
    assert settings.image_url_ports == (443, 8443)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("IMAGE_URL_HOSTS", "*"),
        ("IMAGE_URL_HOSTS", "*.com.*"),
        ("IMAGE_URL_HOSTS", "a.*.example.com"),
        ("IMAGE_URL_HOSTS", "*example.com"),
        ("IMAGE_URL_HOSTS", "*.com"),
        ("IMAGE_URL_HOSTS", "intranet"),
        ("IMAGE_URL_HOSTS", "10.0.0.1"),
        ("IMAGE_URL_HOSTS", "[::1]"),
        ("IMAGE_URL_HOSTS", "https://images.example.com"),
        ("IMAGE_URL_HOSTS", "images.example.com:443"),
        ("IMAGE_URL_PORTS", ""),
        ("IMAGE_URL_PORTS", "0"),
        ("IMAGE_URL_PORTS", "https"),
        ("IMAGE_URL_TIMEOUT_S", "0"),
    ],
)
def test_a_list_that_means_something_else_stops_the_start(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"ILVR_SERVICE_{name}", value)
    with pytest.raises(BadSettings, match=f"ILVR_SERVICE_{name}"):
        load_settings()
