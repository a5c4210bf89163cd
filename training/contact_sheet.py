"""A contact sheet: some samples of a file as cards with question, pictures, helper images and answer, as one PNG."""

from collections import defaultdict
from collections.abc import Sequence
from functools import cache

from PIL import Image, ImageDraw, ImageFont

from training.samples import IMAGE_PLACEHOLDER, LatentStep, Sample, TextStep, load_image

MAX_CARDS = 12
COLUMNS = 3
CARD_WIDTH, MARGIN, PADDING, GAP = 460, 24, 20, 12
SIDE, LARGE_SIDE = 132, 200  # three in a row of a card, or two
MAX_PICTURES = 6
MAX_QUESTION_LINES, MAX_STEP_LINES = 6, 8

PAPER, CARD, BORDER = (236, 234, 228), (255, 255, 255), (214, 209, 198)
INK, FADED = (32, 30, 40), (122, 116, 128)
QUESTION_FRAME, HELPER_FRAME = (186, 180, 168), (44, 112, 222)
GROUP_PILL, ANSWER_PILL = (232, 238, 250), (223, 243, 231)
GROUP_INK, ANSWER_INK = (32, 84, 176), (18, 100, 62)

Colour = tuple[int, int, int]


def contact_sheet(samples: Sequence[Sample], max_cards: int = MAX_CARDS) -> Image.Image:
    """The sheet, RGB. Samples are taken from all groups in turn.

    Raises:
        InvalidRequest: one of their pictures cannot be read.
    """
    cards = [_card(sample) for sample in chosen(samples, max_cards)]
    columns = min(COLUMNS, len(cards))
    rows = [cards[start : start + columns] for start in range(0, len(cards), columns)] if cards else []
    heights = [max(card.height for card in row) for row in rows]
    width = MARGIN + columns * (CARD_WIDTH + MARGIN)
    sheet = Image.new("RGB", (max(width, 2 * MARGIN), MARGIN + sum(height + MARGIN for height in heights)), PAPER)
    top = MARGIN
    for row, height in zip(rows, heights, strict=True):
        for column, card in enumerate(row):
            left = MARGIN + column * (CARD_WIDTH + MARGIN)
            box = (left, top, left + CARD_WIDTH - 1, top + height - 1)
            ImageDraw.Draw(sheet).rounded_rectangle(box, radius=12, fill=CARD, outline=BORDER)
            sheet.paste(card, (left, top), card.getchannel("A"))
        top += height + MARGIN
    return sheet


def chosen(samples: Sequence[Sample], count: int) -> list[Sample]:
    """``count`` samples, as many of each group as of any other where there are enough, spread over the file."""
    groups: dict[str, list[Sample]] = defaultdict(list)
    for sample in samples:
        groups[sample.group or ""].append(sample)
    names = sorted(groups)
    shares = dict.fromkeys(names, 0)
    while sum(shares.values()) < min(count, len(samples)):
        open_names = [name for name in names if shares[name] < len(groups[name])]
        shares[min(open_names, key=lambda name: shares[name])] += 1
    return [groups[name][index * len(groups[name]) // shares[name]] for name in names for index in range(shares[name])]


def wrap(text: str, size: int, width: int, max_lines: int) -> list[str]:
    """Lines no wider than ``width`` pixels; wider words are broken, and too many lines end in an ellipsis."""
    lines = [""]
    for word in "".join(mark if mark.isprintable() else " " for mark in text).split():
        joined = f"{lines[-1]} {word}".strip()
        if _font(size).getlength(joined) <= width:
            lines[-1] = joined
            continue
        if lines[-1]:
            lines.append("")
        for mark in word:
            if _font(size).getlength(lines[-1] + mark) > width:
                lines.append("")
            lines[-1] += mark
    if len(lines) <= max_lines:
        return lines
    last = lines[max_lines - 1]
    while last and _font(size).getlength(last + "…") > width:
        last = last[:-1]
    return [*lines[: max_lines - 1], last.rstrip() + "…"]


@cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """The font that Pillow brings along, so that a sheet looks the same on every machine."""
    return ImageFont.load_default(size)


class _Canvas:
    """A card in the making: everything goes below what is there."""

    def __init__(self) -> None:
        self.image = Image.new("RGBA", (CARD_WIDTH, 4000))
        self.draw = ImageDraw.Draw(self.image)
        self.top = PADDING

    def text(self, text: str, size: int, colour: Colour, max_lines: int) -> None:
        for line in wrap(text, size, CARD_WIDTH - 2 * PADDING, max_lines):
            self.draw.text((PADDING, self.top), line, font=_font(size), fill=colour)
            self.top += round(1.4 * size)
        self.top += GAP

    def pill(self, text: str, left: int, fill: Colour, colour: Colour, size: int) -> int:
        """A word or two on a coloured ground; gives its width."""
        (line,) = wrap(text, size, CARD_WIDTH - PADDING - left - 2 * PADDING, 1)
        width = round(_font(size).getlength(line)) + 20
        self.draw.rounded_rectangle((left, self.top, left + width, self.top + size + 10), radius=8, fill=fill)
        self.draw.text((left + 10, self.top + 3), line, font=_font(size), fill=colour)
        return width

    def pictures(self, pictures: Sequence[tuple[str, Image.Image, Colour]]) -> None:
        """Captioned pictures, two large or three small ones in a row."""
        side, a_row = (LARGE_SIDE, 2) if len(pictures) <= 2 else (SIDE, 3)
        for start in range(0, len(pictures), a_row):
            left, lowest = PADDING, self.top
            for caption, picture, frame in pictures[start : start + a_row]:
                image = _fit(picture, side)
                colour = FADED if frame == QUESTION_FRAME else frame
                self.draw.text((left, self.top), caption, font=_font(12), fill=colour)
                box = (left, self.top + 18, left + image.width + 3, self.top + 18 + image.height + 3)
                self.draw.rectangle(box, outline=frame, width=2)
                self.image.paste(image, (left + 2, self.top + 20))
                left += max(image.width + 4, round(_font(12).getlength(caption))) + GAP
                lowest = max(lowest, box[3])
            self.top = lowest + GAP


def _card(sample: Sample) -> Image.Image:
    canvas = _Canvas()
    left = PADDING
    if sample.group:
        left += canvas.pill(sample.group, left, GROUP_PILL, GROUP_INK, 13) + 8
    canvas.draw.text((left, canvas.top + 4), sample.where, font=_font(13), fill=FADED)
    canvas.top += 23 + GAP
    canvas.text(sample.text_input.replace(IMAGE_PLACEHOLDER, " [picture] "), 17, INK, MAX_QUESTION_LINES)
    pictures = _pictures(sample)
    canvas.pictures(pictures[:MAX_PICTURES])
    if len(pictures) > MAX_PICTURES:
        canvas.text(f"and {len(pictures) - MAX_PICTURES} more pictures", 12, FADED, 1)
    canvas.text(_said(sample), 13, FADED, MAX_STEP_LINES)
    if sample.final_answer:
        canvas.pill(f"answer: {sample.final_answer}", PADDING, ANSWER_PILL, ANSWER_INK, 15)
    else:
        canvas.pill("no answer given", PADDING, PAPER, FADED, 15)
    return canvas.image.crop((0, 0, CARD_WIDTH, canvas.top + 25 + PADDING))


def _pictures(sample: Sample) -> list[tuple[str, Image.Image, Colour]]:
    helpers = [step.helper_image for step in sample.steps if isinstance(step, LatentStep)]
    several = len(sample.images) > 1
    return [
        *(
            (f"picture {number}" if several else "picture", load_image(path), QUESTION_FRAME)
            for number, path in enumerate(sample.images, start=1)
        ),
        *((f"block {number}", load_image(path), HELPER_FRAME) for number, path in enumerate(helpers, start=1)),
    ]


def _said(sample: Sample) -> str:
    """The assistant's turn, each latent block as its number in brackets."""
    number, words = 0, []
    for step in sample.steps:
        if isinstance(step, TextStep):
            words.append(step.content)
        else:
            number += 1
            words.append(f"[block {number}]")
    return " ".join(words)


def _fit(image: Image.Image, side: int) -> Image.Image:
    """At most ``side`` a side. Small ones grow by a whole factor and keep their pixels sharp."""
    factor = side // max(image.size)
    if factor >= 1:
        return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
    scale = side / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.resize(size, Image.Resampling.LANCZOS)
