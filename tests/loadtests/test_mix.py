"""What requests are made of: shares as stated, pictures that repeat and pictures that do not."""

import base64
import io
import json
from collections import Counter
from email import message_from_bytes

import pytest
from PIL import Image

from loadtests.bodies import posted
from loadtests.mix import Ask, mixed
from loadtests.profile import PROFILES, Profile, Stage, decode_profile, load_profile

NUM = 2000


def profile(**fields):
    return Profile(stages=[Stage(seconds=1, level=1)], **fields)


def test_shares_are_as_stated():
    asks = [
        mixed(
            profile(
                kinds={"json": 1, "stream": 3},
                repeated_share=0.3,
                cancel_share=0.1,
                hang_up_share=0.05,
                slow_reader_share=0.02,
                maze_sizes=[3],
            )
        )(number)
        for number in range(NUM)
    ]
    names = Counter(ask.name for ask in asks)
    shares = {name: count / NUM for name, count in names.items()}
    assert shares == {
        "cancel": pytest.approx(0.1, abs=0.03),
        "hang_up": pytest.approx(0.05, abs=0.02),
        "slow": pytest.approx(0.02, abs=0.015),
        "json": pytest.approx(0.83 / 4, abs=0.04),
        "stream": pytest.approx(0.83 * 3 / 4, abs=0.04),
    }
    assert sum(ask.is_repeated for ask in asks) / NUM == pytest.approx(0.3, abs=0.04)


def test_repeated_pictures_are_few_and_the_others_are_new_each_time():
    asks = [mixed(profile(repeated_share=0.5, num_repeated=3, maze_sizes=[5, 6]))(number) for number in range(300)]
    repeated = {ask.picture for ask in asks if ask.is_repeated}
    fresh = [ask.picture for ask in asks if not ask.is_repeated]
    assert len(repeated) == 3
    assert len(set(fresh)) == len(fresh) > 100
    assert not repeated & set(fresh)


def test_a_request_depends_on_its_number_and_the_seed_alone():
    assert mixed(profile(seed=3))(41) == mixed(profile(seed=3))(41)
    assert mixed(profile(seed=3, repeated_share=0))(41).picture != mixed(profile(seed=4, repeated_share=0))(41).picture


def ask(kind):
    file = io.BytesIO()
    Image.new("RGB", (28, 28)).save(file, "PNG")
    return Ask(number=0, kind=kind, manner="polite", question="Wo? ✓", picture=file.getvalue(), is_repeated=False)


@pytest.mark.parametrize("kind", ["json", "stream"])
def test_json_holds_the_question_the_picture_and_the_sampling(kind):
    sent = posted(ask(kind), profile(max_tokens=9), "m")
    fields = json.loads(sent.body)
    assert (sent.path, sent.is_stream, fields["stream"]) == ("/v1/reason", kind == "stream", kind == "stream")
    assert base64.b64decode(fields["images"][0]["data"]) == ask(kind).picture
    assert (fields["question"], fields["max_tokens"], fields["temperature"]) == ("Wo? ✓", 9, 0.0)


def test_a_form_has_a_part_for_each_field_and_the_file():
    sent = posted(ask("form"), profile(temperature=None), "m")
    message = message_from_bytes(b"Content-Type: " + sent.content_type.encode() + b"\r\n\r\n" + sent.body)
    parts = {part.get_param("name", header="content-disposition"): part for part in message.get_payload()}
    assert set(parts) == {"question", "max_tokens", "image"}
    assert parts["image"].get_payload(decode=True) == ask("form").picture
    assert parts["question"].get_payload(decode=True).decode() == "Wo? ✓"


def test_a_chat_asks_in_openais_format():
    sent = posted(ask("chat_stream"), profile(), "the-model")
    fields = json.loads(sent.body)
    image, text = fields["messages"][0]["content"]
    assert (sent.path, fields["model"], fields["stream_options"]) == (
        "/v1/chat/completions",
        "the-model",
        {"include_usage": True},
    )
    assert image["image_url"]["url"].startswith("data:image/png;base64,")
    assert text == {"type": "text", "text": "Wo? ✓"}


@pytest.mark.parametrize("file", sorted(PROFILES.glob("*.toml")), ids=lambda file: file.stem)
def test_every_profile_can_be_read(file):
    assert load_profile(file.stem, {}) == load_profile(str(file), {})


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"stages": []}, "at least one stage"),
        ({"stages": [{"seconds": 1, "level": 0}]}, "above 0"),
        ({"repeated_share": 1.5}, "0 to 1"),
        ({"cancel_share": 0.6, "hang_up_share": 0.6}, "at most 1"),
        ({"kinds": {"jsn": 1}}, "jsn"),
        ({"kinds": {"json": 0}}, "at least one"),
        ({"rate": 3}, "has no rate"),
    ],
)
def test_what_cannot_be_is_refused(fields, word):
    with pytest.raises(ValueError, match=word):
        decode_profile({"stages": [{"seconds": 1, "level": 1}], **fields})
