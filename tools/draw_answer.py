"""Draws the README's picture: a maze, and the answer to it as a running server streamed it.

python tools/draw_answer.py --url http://127.0.0.1:8000 --size 5 --seed 3 --out docs/images/answer.png
"""

import argparse
import json
from io import BytesIO
from pathlib import Path

import httpx
from PIL import Image, ImageDraw, ImageFont

from contracts.maze_pictures import draw_maze
from contracts.mazes import QUESTION, generate

SCALE = 2
MARGIN = 28
WIDTH, HEIGHT = 940, 340
INK, QUIET, LATENT, PAPER = (30, 34, 40), (120, 126, 134), (72, 96, 200), (255, 255, 255)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--size", type=int, default=5)
    parser.add_argument("--seed", type=int, default=3)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    maze = draw_maze(generate(args.size, args.seed, "test").rows)
    events = ask(args.url, maze)
    draw(maze, events).save(args.out)
    print(f"wrote {args.out}: {len(events)} events")


def ask(url: str, maze: Image.Image) -> list[dict]:
    """The events of the streamed response."""
    png = BytesIO()
    maze.save(png, "PNG")
    form = {"question": QUESTION, "stream": "true"}
    with httpx.stream("POST", f"{url}/v1/reason", data=form, files={"image": png.getvalue()}, timeout=60) as streamed:
        return [json.loads(line[6:]) for line in streamed.iter_lines() if line.startswith("data: ")]


def draw(maze: Image.Image, events: list[dict]) -> Image.Image:
    picture = Image.new("RGB", (WIDTH, HEIGHT), PAPER)
    enlarged = maze.resize((maze.width * SCALE, maze.height * SCALE), Image.Resampling.NEAREST)
    picture.paste(enlarged, (MARGIN, (HEIGHT - enlarged.height) // 2))
    canvas = ImageDraw.Draw(picture)
    left, y = MARGIN * 2 + enlarged.width, MARGIN
    large, small = ImageFont.load_default(22), ImageFont.load_default(16)
    canvas.text((left, y), QUESTION, font=large, fill=INK)
    y += 50
    response = events[-1]["response"]
    for step in response["steps"]:
        canvas.text((left, y + 4), f"{step['type']}", font=small, fill=QUIET)
        if step["type"] == "text":
            canvas.text((left + 80, y), step["text"], font=large, fill=INK)
        else:
            for n in range(step["size"]):
                x = left + 80 + n * 34
                canvas.rounded_rectangle((x, y, x + 28, y + 28), radius=5, fill=LATENT)
            told = f"{step['size']} latent steps, {step['exit']}, {step['duration_ms']:.0f} ms"
            canvas.text((left + 80 + step["size"] * 34 + 10, y + 5), told, font=small, fill=QUIET)
        y += 50
    canvas.text((left, y + 8), f"answer: {response['answer']}", font=large, fill=INK)
    timings = response["timings"]
    told = (
        f"first step after {timings['time_to_first_step_ms']:.0f} ms, all after {timings['total_ms']:.0f} ms, "
        f"{len(events)} events, {response['model']}"
    )
    canvas.text((left, y + 48), told, font=small, fill=QUIET)
    return picture


if __name__ == "__main__":
    main()
