"""The simulator of VSP's spatial planning: does a path lead safely through a maze?

The maze is ``map_desc`` of a sample: rows of 1 (start), 2 (goal), -1 (hole) and 0 (free). A path succeeds if it ends
on the goal and enters no hole; a move off the grid stays in place. Entering a hole fails the path even if a later move
would leave it, and a path that only crosses the goal has not ended there.

How moves are read is that of the published simulator (XD111ds/ILVR, ``parse_action_sequence``): each letter U, D, L or
R, in capitals or not, is a move, and every other character is skipped. "R, R, d" is RRD, and so are the words "Right,
right, down", because no other letter of the four words is a move. Skipping means that a wrong letter is forgiven ("RXD"
is RD), which ``contracts.mazes.run_path`` does not do; scores are to be compared with published ones, so it is kept.
"""

from collections.abc import Sequence

from contracts.errors import InvalidRequest
from contracts.mazes import FREE, GOAL, HOLE, MOVES, START, Rows, run_path

CELLS = {1: START, 2: GOAL, -1: HOLE, 0: FREE}


def moves_of(path: str) -> str:
    """The moves in a text, as capitals U, D, L and R."""
    return "".join(letter for letter in path.upper() if letter in MOVES)


def rows_of_map(map_desc: Sequence[Sequence[int]]) -> Rows:
    """The maze in the form of ``contracts.mazes``.

    Raises:
        InvalidRequest: a cell of another kind, rows of different lengths, or no start.
    """
    if not map_desc or len({len(row) for row in map_desc}) != 1:
        raise InvalidRequest("map_desc must have rows of one length", param="map_desc")
    cells = [cell for row in map_desc for cell in row]
    if unknown := sorted({repr(cell) for cell in cells if cell not in CELLS}):
        raise InvalidRequest(f"map_desc holds 1, 2, -1 and 0 only, not {', '.join(unknown)}", param="map_desc")
    if 1 not in cells:
        raise InvalidRequest("map_desc has no start (1)", param="map_desc")
    return tuple("".join(CELLS[cell] for cell in row) for row in map_desc)


def is_success(map_desc: Sequence[Sequence[int]], path: str) -> bool:
    """Whether the moves in ``path`` lead from the start to the goal. No move at all does not.

    Raises ``InvalidRequest`` as :func:`rows_of_map`.
    """
    return run_path(rows_of_map(map_desc), moves_of(path))
