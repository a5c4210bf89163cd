"""Several questions about one picture: it is sent once, and encoded once."""

import ilvr
from contracts.maze_pictures import draw_maze
from contracts.mazes import QUESTION, generate

with ilvr.Client() as client:
    picture = client.upload(draw_maze(generate(4, 11).rows))
    print(f"{picture.id[:12]}…, {picture.width} x {picture.height} pixels")
    for latent in ("on", "off", "on"):
        response = client.reason([picture], QUESTION, latent=latent)
        first_ms = response.timings.time_to_first_step_ms
        print(
            f"latents {latent}: {response.answer}, {response.usage.latent_steps} latent steps, first step {first_ms} ms"
        )
