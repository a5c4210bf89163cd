"""``ilvr keys``, and that ``serve`` and ``gateway`` listen for others only with keys."""

import json
from pathlib import Path

import pytest

from ilvr.cli import main
from service.keys import hash_of


def made(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[str, str]:
    """The key and the line below it."""
    assert main(["keys", "new", *words]) == 0
    told = capsys.readouterr()
    token, line = told.out.splitlines()
    assert told.err == ""
    return token, line


def test_a_new_key_is_shown_once_and_only_its_hash_is_written_down(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    words = ("--scope", "reason", "--scope", "admin", "--rate", "60", "--burst", "10", "--max-open", "8")
    token, line = made(capsys, "--name", "web", *words)
    assert line == (
        f'web = {{sha256 = "{hash_of(token)}", scopes = ["reason", "admin"], rate_per_minute = 60.0, burst = 10, '
        "max_open = 8}"
    )
    other, second = made(capsys, "--name", "other")
    file = tmp_path / "keys.toml"
    file.write_text(f"{line}\n{second}\n")
    assert main(["keys", "check", str(file)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"web.{hash_of(token)[:12]}  admin, reason  60 a minute, 10 at once, 8 open",
        f"other.{hash_of(other)[:12]}  images, reason  any rate, any number open",
        "2 keys",
    ]


def test_the_line_for_the_environment(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    token, line = made(capsys, "--name", "web", "--json")
    assert json.loads(line) == {"web": {"sha256": hash_of(token), "scopes": ["reason", "images"]}}
    monkeypatch.setenv("ILVR_SERVICE_API_KEYS", line)
    assert main(["keys", "check"]) == 0
    assert capsys.readouterr().out.endswith("\n1 key\n")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["new", "--name", "w b"], "1 to 40 letters"),
        (["new", "--name", "web", "--rate", "60"], "rate_per_minute and burst go together"),
        (["new", "--name", "web", "--rate", "nan", "--burst", "1"], "rate_per_minute"),
        (["new", "--name", "web", "--max-open", "0"], "max_open"),
        (["check"], "ILVR_SERVICE_API_KEYS_FILE"),
        (["check", "/none"], "/none: No such file"),
    ],
)
def test_a_mistake_is_one_line(words: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["keys", *words]) == 1
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith("ilvr keys: ")
    assert says in told.err
    assert told.err.count("\n") == 1


@pytest.mark.parametrize(
    "command", [["serve"], ["gateway", "--redis-url", "redis://127.0.0.1:1/0"]], ids=lambda words: str(words[0])
)
def test_no_command_listens_for_others_without_keys(
    command: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is bound: the port is one that could not be."""
    for host in ("0.0.0.0", "::"):
        assert main([*command, "--host", host, "--port", "99999"]) == 1
        assert "nobody would be asked for a key" in capsys.readouterr().err
    monkeypatch.setenv("ILVR_SERVICE_ALLOW_ANONYMOUS", "true")
    assert main([*command, "--host", "0.0.0.0", "--port", "99999"]) == 1
    assert "cannot bind 0.0.0.0:99999" in capsys.readouterr().err
