"""Encoding with the real vocabulary and template of Qwen2.5-VL: texts written out, positions against transformers."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from contracts.errors import BadCheckpoint, InvalidRequest
from tests.training.tiny import tiny_model
from training.batch import IGNORED_LABEL, Block, Encoded
from training.encoding import IMAGE_MARKUP, Encoder, load_encoder
from training.positions import Grid, mrope_positions
from training.samples import LatentStep, Sample, TextStep, read_samples

TOKENIZER = Path(__file__).parents[1] / "golden" / "tok"
K = 3
SYSTEM = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n"
ASSISTANT = "<|im_end|>\n<|im_start|>assistant\n"
BLOCK = "<|latent_start|><|latent_pad|><|latent_pad|><|latent_pad|><|latent_end|>"
IM_START, IM_END, IMAGE, PAD, START, END = 151644, 151645, 151655, 151665, 151666, 151667

Draw = Callable[[int, int], Path]


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return load_encoder(TOKENIZER, K)


@pytest.fixture
def draw(tmp_path: Path) -> Draw:
    """A picture of rows x columns visual tokens of 28 pixels, in a file."""

    def draw(rows: int, columns: int) -> Path:
        path = tmp_path / f"{rows}x{columns}.png"
        Image.new("RGB", (28 * columns, 28 * rows), (10 * rows, 10 * columns, 0)).save(path)
        return path

    return draw


def _sample(text: str, images: tuple[Path, ...] = (), steps: tuple[TextStep | LatentStep, ...] = ()) -> Sample:
    return Sample(
        text_input=text,
        images=images,
        steps=steps,
        final_answer=None,
        map_desc=None,
        group=None,
        where="train.jsonl:7",
    )


def _said(encoder: Encoder, one: Encoded, *, labelled: bool) -> str:
    """Text of the tokens that have a label, or of all."""
    ids = one.labels[one.labels != IGNORED_LABEL] if labelled else one.input_ids
    return str(encoder.tokenizer.decode(ids.tolist(), skip_special_tokens=False))


def test_each_placeholder_gives_way_to_its_image(encoder: Encoder, draw: Draw) -> None:
    one = _sample("First <image> then <image>. Which?", (draw(2, 3), draw(4, 2)), (TextStep(content="A"),))
    expected = f"{SYSTEM}First {IMAGE_MARKUP} then {IMAGE_MARKUP}. Which?{ASSISTANT}A<|im_end|>\n"
    assert encoder.text(one) == expected
    encoded = encoder.encode(one)
    tokens = "<|image_pad|>"
    spread = expected.replace(tokens, tokens * 6, 1)
    cut = spread.rindex(tokens)
    assert _said(encoder, encoded, labelled=False) == spread[:cut] + tokens * 8 + spread[cut + len(tokens) :]
    assert encoded.images.grids.tolist() == [[1, 4, 6], [1, 8, 4]]


def test_images_without_placeholders_come_first(encoder: Encoder, draw: Draw) -> None:
    one = _sample("Which?", (draw(2, 2), draw(2, 3)), (TextStep(content="A"),))
    assert encoder.text(one) == f"{SYSTEM}{IMAGE_MARKUP}{IMAGE_MARKUP}Which?{ASSISTANT}A<|im_end|>\n"


def test_one_path_is_a_list_of_one(encoder: Encoder, draw: Draw, tmp_path: Path) -> None:
    name = draw(2, 3).name
    plan = [{"type": "text", "content": "A"}]
    rows = [{"text_input": "See <image>?", "image_input": images, "sequence_plan": plan} for images in (name, [name])]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    plain, listed = (encoder.encode(one) for one in read_samples(tmp_path / "rows.jsonl"))
    assert plain.input_ids.tolist() == listed.input_ids.tolist()
    assert plain.input_ids.tolist().count(IMAGE) == 6
    assert torch.equal(plain.images.values_PX, listed.images.values_PX)


@pytest.mark.parametrize(("text", "num_images"), [("<image> <image>", 1), ("<image>", 2), ("<image>", 0)])
def test_as_many_placeholders_as_images(encoder: Encoder, draw: Draw, text: str, num_images: int) -> None:
    with pytest.raises(InvalidRequest, match=r"train\.jsonl:7: text_input has"):
        encoder.encode(_sample(text, (draw(2, 2),) * num_images))


def test_markup_of_the_text_is_kept(encoder: Encoder, draw: Draw) -> None:
    """Also special tokens, which become one id each."""
    text = "<b>1 < 2</b> <|im_end|>\n<helper> <|latent_start|> <images>"
    one = _sample(text, (draw(2, 2),), (TextStep(content="<i>x</i> <|endoftext|> y"),))
    assert encoder.text(one) == f"{SYSTEM}{IMAGE_MARKUP}{text}{ASSISTANT}<i>x</i> <|endoftext|> y<|im_end|>\n"
    ids = encoder.encode(one).input_ids.tolist()
    assert ids.count(IM_END) == 4  # of system, text, user and assistant
    assert ids.count(START) == 1


@pytest.mark.parametrize("num_images", [0, 1])
def test_an_image_token_of_the_text_is_one_too_many(encoder: Encoder, draw: Draw, num_images: int) -> None:
    with pytest.raises(InvalidRequest, match=r"train\.jsonl:7: .*more image tokens than"):
        encoder.encode(_sample(f"What is {IMAGE_MARKUP}?", (draw(2, 2),) * num_images))


def test_beside_placeholders_image_markup_is_dropped(encoder: Encoder, draw: Draw) -> None:
    one = _sample(f"a{IMAGE_MARKUP}b<image>c", (draw(2, 2),))
    assert encoder.text(one).startswith(f"{SYSTEM}ab{IMAGE_MARKUP}c<|im_end|>")


@pytest.mark.parametrize(
    "sizes",
    [[], [(2, 3)], [(2, 5), (6, 2)], [(3, 3), (2, 2), (2, 8)]],
    ids=["text", "one", "wide and tall", "three"],
)
@pytest.mark.parametrize("between", ["", " and "], ids=["side by side", "in the text"])
def test_positions_are_those_of_transformers(
    encoder: Encoder, draw: Draw, sizes: list[tuple[int, int]], between: str
) -> None:
    """Images at the beginning without placeholders, or with text before, between and behind them."""
    text = f"See {between.join(['<image>'] * len(sizes))} now" if between else "See now"
    steps = (TextStep(content="Hm."), LatentStep(helper_image=draw(2, 2)), TextStep(content="So."))
    encoded = encoder.encode(_sample(text, tuple(draw(*size) for size in sizes), steps))
    ids = encoded.input_ids[None]
    expected, _ = tiny_model(torch.float32).model.get_rope_index(
        ids, (ids == IMAGE).int(), image_grid_thw=encoded.images.grids if encoded.images else None
    )
    assert torch.equal(encoded.positions_3T, expected[:, 0])


def test_labels_are_all_that_the_assistant_says_but_pads(encoder: Encoder, draw: Draw) -> None:
    steps = (TextStep(content="I draw."), LatentStep(helper_image=draw(2, 2)), TextStep(content=" So: 3"))
    encoded = encoder.encode(_sample("How many?", (draw(2, 3),), steps))
    assert _said(encoder, encoded, labelled=True) == "\nI draw.<|latent_start|><|latent_end|> So: 3<|im_end|>\n"
    at = encoded.labels != IGNORED_LABEL
    assert torch.equal(encoded.labels[at], encoded.input_ids[at])
    assert encoded.input_ids[encoded.prompt_length] == IM_START
    assert not at[: encoded.prompt_length + 2].any()  # the header is two tokens
    prompt = encoder.tokenizer.decode(encoded.input_ids[: encoded.prompt_length].tolist(), skip_special_tokens=False)
    assert prompt.endswith("How many?<|im_end|>\n")


def test_end_of_text_said_by_the_assistant_has_no_label(encoder: Encoder) -> None:
    """As released: it is the padding token."""
    encoded = encoder.encode(_sample("Q", steps=(TextStep(content="a<|endoftext|>b"),)))
    assert _said(encoder, encoded, labelled=True) == "\nab<|im_end|>\n"


def test_blocks_are_where_their_pads_are(encoder: Encoder, draw: Draw) -> None:
    """Two blocks side by side, one at the very beginning of what the assistant says."""
    latents = [LatentStep(helper_image=draw(2, columns), target_cells=(columns,)) for columns in (2, 3, 4)]
    encoded = encoder.encode(_sample("Q", (), (latents[0], TextStep(content="t"), *latents[1:], TextStep(content="u"))))
    ids = encoded.input_ids.tolist()
    text = f"{SYSTEM}Q{ASSISTANT}{BLOCK}t{BLOCK}{BLOCK}u<|im_end|>\n"
    assert _said(encoder, encoded, labelled=False) == text
    starts = [index for index, token in enumerate(ids) if token == START]
    assert encoded.blocks == tuple(Block(start + 1, K) for start in starts)
    for block in encoded.blocks:
        assert ids[block.first_pad : block.end + 1] == [PAD] * K + [END]
    assert list(encoded.helpers.num_tokens) == [4, 6, 8]
    assert encoded.target_cells == ((2,), (3,), (4,))


def test_a_latent_block_in_the_text_is_refused(encoder: Encoder, draw: Draw) -> None:
    """It has no helper image, and would take that of another block."""
    steps = (TextStep(content="t"), LatentStep(helper_image=draw(2, 2)))
    for one in (_sample(f"Q {BLOCK}", (), steps), _sample("Q", (), (*steps, TextStep(content=BLOCK)))):
        with pytest.raises(InvalidRequest, match=r"train\.jsonl:7: .*latent block of its own"):
            encoder.encode(one)


def test_target_cells_lie_in_the_helper_image(encoder: Encoder, draw: Draw) -> None:
    for cell, is_right in ((5, True), (6, False)):
        one = _sample("Q", (), (LatentStep(helper_image=draw(2, 3), target_cells=(0, cell)),))
        if is_right:
            assert encoder.encode(one).target_cells == ((0, 5),)
        else:
            with pytest.raises(InvalidRequest, match=r"train\.jsonl:7: target_cells names visual token 6"):
                encoder.encode(one)


def test_helper_images_are_not_opened_where_no_teacher_looks(encoder: Encoder, tmp_path: Path) -> None:
    steps = (LatentStep(helper_image=tmp_path / "missing.png"), TextStep(content="t"))
    encoded = encoder.encode(_sample("Q", (), steps), with_helpers=False)
    assert encoded.helpers is None
    assert len(encoded.blocks) == 1
    with pytest.raises(InvalidRequest, match=r"missing\.png"):
        encoder.encode(_sample("Q", (), steps))


def test_a_folder_without_what_is_needed_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadCheckpoint, match=r"tokenizer\.json is missing"):
        load_encoder(tmp_path, K)
    shutil.copytree(TOKENIZER, tmp_path / "tok", ignore=shutil.ignore_patterns("chat_template.json"))
    config = json.loads((tmp_path / "tok" / "tokenizer_config.json").read_text())
    config.pop("chat_template", None)
    (tmp_path / "tok" / "tokenizer_config.json").write_text(json.dumps(config))
    with pytest.raises(BadCheckpoint, match="no chat template"):
        load_encoder(tmp_path / "tok", K)


def test_a_tokenizer_without_latent_tokens_is_refused(encoder: Encoder) -> None:
    with pytest.raises(BadCheckpoint, match=r"no <\|latent_pads\|>"):
        encoder.id_of("<|latent_pads|>")


@pytest.mark.parametrize(("width", "height", "is_taken"), [(200, 1, True), (201, 1, False), (1, 201, False)])
def test_a_thin_picture_is_told_with_line_and_file(
    encoder: Encoder, tmp_path: Path, width: int, height: int, is_taken: bool
) -> None:
    path = tmp_path / "thin.png"
    Image.new("RGB", (width, height)).save(path)
    for one in (_sample("Q", (path,)), _sample("Q", (), (LatentStep(helper_image=path),))):
        if is_taken:
            encoder.encode(one)
        else:
            with pytest.raises(InvalidRequest, match=rf"^train\.jsonl:7: {path}: .*{width} x {height}"):
                encoder.encode(one)


def test_a_damaged_picture_is_told_with_line_and_file(encoder: Encoder, tmp_path: Path) -> None:
    path = tmp_path / "damaged.png"
    path.write_bytes(b"no picture")
    for one in (_sample("Q", (path,)), _sample("Q", (), (LatentStep(helper_image=path),))):
        with pytest.raises(InvalidRequest, match=rf"^train\.jsonl:7: {path}: not a picture"):
            encoder.encode(one)


@pytest.mark.parametrize("name", ["tokenizer.json", "preprocessor_config.json"])
@pytest.mark.parametrize("content", [None, "", "[]", '{"version": "1.0"', '{"version": 3}'])
def test_a_missing_or_damaged_file_of_the_folder_is_named(tmp_path: Path, name: str, content: str | None) -> None:
    shutil.copytree(TOKENIZER, tmp_path / "tok")
    if content is None:
        (tmp_path / "tok" / name).unlink()
    else:
        (tmp_path / "tok" / name).write_text(content)
    if name == "preprocessor_config.json" and content == '{"version": 3}':
        load_encoder(tmp_path / "tok", K)  # its defaults are those of Qwen2-VL
        return
    with pytest.raises(BadCheckpoint, match=f"{name} (is missing|cannot be loaded).*copy it from the base") as caught:
        load_encoder(tmp_path / "tok", K)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("ids", "grids"),
    [([0, 9, 9, 0], [(1, 2, 2)]), ([0, 9, 0, 9], [(1, 1, 1)]), ([0, 9], [(1, 1, 1)] * 2), ([9, 9], [(1, 1, 1)] * 2)],
    ids=["too few tokens", "too few images", "too many images", "no text between"],
)
def test_images_that_are_not_where_their_tokens_are_have_no_positions(ids: list[int], grids: list[Grid]) -> None:
    with pytest.raises(ValueError, match="image"):
        mrope_positions(ids, 9, grids)
