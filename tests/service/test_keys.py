"""What stands in a file of keys, and whose a token is."""

import json
import os
from pathlib import Path

import pytest

from contracts.errors import BadSettings
from contracts.jobs import RateLimit
from service.key_source import LOOK_INTERVAL_S, MAX_FILE_BYTES, KeyFile, open_keys, read_keys
from service.keys import MAX_KEYS, MAX_TOKEN_CHARS, hash_of, new_token, parse_keys
from service.settings import ServiceSettings

# By sha256sum, of "ilvr_a".
A = "7d29d0cbd176c9d6144cca2e9dd7ef7a7d09b094c0296ed367b8706b7cb9584b"
TOKEN = "ilvr_" + "a" * 43


def line(name: str, token: str, **fields: object) -> str:
    given = {"sha256": hash_of(token), "scopes": ["reason"], **fields}
    return f"{name} = {{" + ", ".join(f"{key} = {json.dumps(value)}" for key, value in given.items()) + "}\n"


def test_a_line_of_toml_is_a_key() -> None:
    text = "# ours\n" + line("web", TOKEN, scopes=["reason", "admin"], rate_per_minute=60, burst=10, max_open=8)
    (caller,) = parse_keys(text, "keys.toml")
    assert caller.scopes == {"reason", "admin"}
    assert caller.rate_limit == RateLimit(per_minute=60, burst=10)
    assert caller.max_open == 8
    assert parse_keys(text, "keys.toml").find(TOKEN) == caller


def test_json_is_the_same() -> None:
    as_json = json.dumps({"web": {"sha256": hash_of(TOKEN), "scopes": ["reason"]}})
    assert list(parse_keys(as_json, "-")) == list(parse_keys(line("web", TOKEN), "-"))


def test_the_hash_is_sha256() -> None:
    """As ``printf ilvr_a | sha256sum`` says."""
    assert hash_of("ilvr_a") == A


def test_the_owner_names_the_key_and_does_not_reveal_it() -> None:
    (caller,) = parse_keys(line("web", TOKEN), "-")
    assert caller.owner == f"web.{hash_of(TOKEN)[:12]}"
    (renewed,) = parse_keys(line("web", new_token()), "-")
    assert renewed.owner != caller.owner


def test_each_token_finds_its_own_key_and_another_none() -> None:
    tokens = {f"k{number}": new_token() for number in range(50)}
    ring = parse_keys("".join(line(name, token) for name, token in tokens.items()), "-")
    for name, token in tokens.items():
        caller = ring.find(token)
        assert caller is not None
        assert caller.owner.startswith(f"{name}.")
    for wrong in ("", "x", TOKEN, tokens["k1"][:-1], tokens["k1"] + "A", tokens["k1"].upper(), hash_of(tokens["k1"])):
        assert ring.find(wrong) is None
    assert ring.find("é" * MAX_TOKEN_CHARS) is None


def test_every_key_is_compared_whichever_is_right(monkeypatch: pytest.MonkeyPatch) -> None:
    """That the comparison takes the same time is ``hmac.compare_digest``'s; that all are compared is ours."""
    import hmac

    tokens = [new_token() for _ in range(20)]
    ring = parse_keys("".join(line(f"k{number}", token) for number, token in enumerate(tokens)), "-")
    compared = 0

    def counting(one: bytes, other: bytes, compare=hmac.compare_digest) -> bool:  # type: ignore[no-untyped-def]
        nonlocal compared
        compared += 1
        result: bool = compare(one, other)
        return result

    monkeypatch.setattr(hmac, "compare_digest", counting)
    for token in (tokens[0], tokens[10], tokens[-1], "ilvr_wrong"):
        compared = 0
        ring.find(token)
        assert compared == 20


def test_a_token_too_long_is_not_even_hashed() -> None:
    long = "a" * (MAX_TOKEN_CHARS + 1)
    assert parse_keys(line("web", long), "-").find(long) is None


def test_new_tokens_are_long_and_random() -> None:
    tokens = {new_token() for _ in range(100)}
    assert len(tokens) == 100
    assert {len(token) for token in tokens} == {48}  # ilvr_ and 32 bytes in base64
    assert all(token.startswith("ilvr_") for token in tokens)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("web = 1", "web: "),
        ("web", "not TOML"),
        ("{", "no JSON object"),
        ("web = {sha256 = 'x', scopes = ['reason']}", "web.sha256: "),
        (f"web = {{sha256 = '{A}', scopes = []}}", "web.scopes: "),
        (f"web = {{sha256 = '{A}', scopes = ['root']}}", "web.scopes.0: "),
        (f"web = {{sha256 = '{A}'}}", "web.scopes: "),
        (f"web = {{sha256 = '{A}', scopes = ['reason'], rate = 3}}", "web.rate: "),
        (f"web = {{sha256 = '{A}', scopes = ['reason'], burst = 3}}", "rate_per_minute and burst go together"),
        (f"web = {{sha256 = '{A}', scopes = ['reason'], rate_per_minute = inf, burst = 3}}", "web.rate_per_minute: "),
        (f"web = {{sha256 = '{A}', scopes = ['reason'], max_open = 0}}", "web.max_open: "),
        (f"'w b' = {{sha256 = '{A}', scopes = ['reason']}}", "40 letters, digits"),
        (
            f"a = {{sha256 = '{A}', scopes = ['reason']}}\nb = {{sha256 = '{A}', scopes = ['reason']}}",
            "the same sha256",
        ),
        (json.dumps({"web": {"sha256": A, "scopes": ["reason"]}})[:-1] + ', "web": {}}', "'web' stands there twice"),
        ("{" + '"a":{' * 100_000, "no JSON object"),
        ("".join(line(f"k{number}", f"t{number}") for number in range(MAX_KEYS + 1)), "at most 1000"),
    ],
)
def test_a_mistake_is_one_line_that_names_the_place(text: str, says: str) -> None:
    with pytest.raises(BadSettings) as refused:
        parse_keys(text, "keys.toml")
    assert str(refused.value).startswith("keys.toml: ")
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("text", ["{0} = 1", "{0}", "web = {{sha256 = '{0}', scopes = ['reason']}}", '{{"{0}": 1}}'])
def test_a_key_that_was_put_there_by_mistake_is_not_quoted(text: str) -> None:
    with pytest.raises(BadSettings) as refused:
        parse_keys(text.format(TOKEN), "keys.toml")
    assert TOKEN not in str(refused.value)


class TestFile:
    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        return tmp_path / "keys.toml"

    def test_a_changed_file_is_read_again_and_a_broken_one_is_not(
        self, path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        now = 0.0
        first, second = new_token(), new_token()
        path.write_text(line("first", first))
        source = KeyFile(path, clock=lambda: now)

        path.write_text(line("first", first) + line("second", second))
        assert source.now().find(second) is None  # looked at less than a second ago
        now += LOOK_INTERVAL_S
        assert source.now().find(second) is not None

        path.write_text("oops")
        now += LOOK_INTERVAL_S
        assert source.now().find(first) is not None
        path.write_text("")
        now += LOOK_INTERVAL_S
        assert source.now().find(first) is not None
        path.unlink()
        now += LOOK_INTERVAL_S
        assert source.now().find(first) is not None
        assert caplog.text.count("the API keys stay as they were") == 3
        now += LOOK_INTERVAL_S
        source.now()
        assert caplog.text.count("the API keys stay as they were") == 3  # each state of the file is told once

        path.write_text(line("second", second))
        now += LOOK_INTERVAL_S
        assert (source.now().find(first), len(source.now())) == (None, 1)

    def test_a_replaced_file_of_the_same_size_and_time_is_another_one(self, path: Path, tmp_path: Path) -> None:
        now = 0.0
        first, second = new_token(), new_token()
        path.write_text(line("web", first))
        source = KeyFile(path, clock=lambda: now)
        other = tmp_path / "other"
        other.write_text(line("web", second))
        stat = path.stat()
        os.utime(other, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        other.replace(path)
        now += LOOK_INTERVAL_S
        assert source.now().find(second) is not None

    @pytest.mark.parametrize(
        ("content", "says"),
        [
            (None, "No such file"),
            (b"", "no key is in it"),
            (b"\xff", "not UTF-8"),
            (b"#" * (MAX_FILE_BYTES + 1), "more than"),
        ],
    )
    def test_what_cannot_be_read_stops_the_start(self, content: bytes | None, says: str, path: Path) -> None:
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(BadSettings, match=says):
            open_keys(ServiceSettings(api_keys_file=path))

    def test_a_folder_is_no_file(self, tmp_path: Path) -> None:
        with pytest.raises(BadSettings, match="Is a directory"):
            read_keys(tmp_path)


def test_keys_from_the_environment() -> None:
    assert open_keys(ServiceSettings()) is None
    source = open_keys(ServiceSettings(api_keys=line("web", TOKEN)))
    assert source is not None
    assert source.now().find(TOKEN) is not None
    for nothing in ("", "{}", "# none"):
        with pytest.raises(BadSettings, match="holds no key"):
            open_keys(ServiceSettings(api_keys=nothing))
