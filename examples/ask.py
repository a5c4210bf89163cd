"""One question, one answer. Start a server first: ilvr serve"""

import ilvr
from contracts.maze_pictures import draw_maze
from contracts.mazes import QUESTION, generate

maze = generate(size=4, seed=7)

with ilvr.Client() as client:
    # A picture is a path, the bytes of a file, a Pillow image or a URL that the server allows.
    response = client.reason([draw_maze(maze.rows)], QUESTION)

for step in response.steps:
    print(step)
print(f"answer {response.answer}, shortest path {maze.solution}, {response.usage.latent_steps} latent steps")
