"""Ask now, read later: the response lives on the server, whoever reads it from wherever."""

import ilvr
from contracts.maze_pictures import draw_maze
from contracts.mazes import QUESTION, generate

with ilvr.Client() as client:
    pictures = [draw_maze(generate(4, seed).rows) for seed in (1, 2)]
    wanted, unwanted = (client.submit([picture], QUESTION, metadata={"from": "examples"}) for picture in pictures)
    print(f"{wanted.id} is {wanted.status}")
    print(f"{unwanted.id} is {client.cancel(unwanted.id).status}")

with ilvr.Client() as client:  # another process, another day (within 15 minutes of the end)
    print(f"{wanted.id} answers {client.follow(wanted.id).finished().answer}")
