"""Thirty-two questions at once, in one batch on the server; a full queue is waited for by the client."""

import asyncio
import time

import ilvr
from contracts.maze_pictures import draw_maze
from contracts.mazes import QUESTION, Maze, distinct, run_path


async def is_solved(client: ilvr.AsyncClient, maze: Maze) -> bool:
    response = await client.reason([draw_maze(maze.rows)], QUESTION, temperature=0)
    return response.answer is not None and run_path(maze.rows, response.answer)


async def main() -> None:
    mazes = distinct(4, "test", 32)
    began_s = time.monotonic()
    async with ilvr.AsyncClient() as client:
        solved = await asyncio.gather(*(is_solved(client, maze) for maze in mazes))
    print(f"{sum(solved)} of {len(mazes)} mazes solved in {time.monotonic() - began_s:.2f} s")


asyncio.run(main())
