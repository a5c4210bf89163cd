"""Checks of the JSON values of one line. Each error names file, line and field, in one sentence."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from contracts.errors import InvalidRequest

# Cells of ``map_desc``, as VSP writes them.
MAP_START, MAP_GOAL, MAP_HOLE, MAP_FREE = MAP_CELLS = (1, 2, -1, 0)

_KINDS = {dict: "an object", list: "a list", str: "text", bool: "true or false", int: "a number", float: "a number"}


@dataclass(frozen=True, slots=True)
class Fields:
    """Reads values of the line ``where`` (``train.jsonl:12``). Every method raises InvalidRequest for a wrong value."""

    where: str
    image_root: Path
    check_images: bool

    def fail(self, field: str, problem: str) -> NoReturn:
        """Raise for a field, named as in ``sequence_plan[1].helper_image``."""
        raise InvalidRequest(f"{self.where}: {field} {problem}", param=field)

    @staticmethod
    def kind(value: object) -> str:
        """What a JSON value is called in an error."""
        if value is None:
            return "null"
        return "an empty text" if value == "" else _KINDS[type(value)]

    def parse(self, line: bytes) -> Mapping[str, Any]:
        """The JSON object of the line."""
        try:
            row = json.loads(line.decode("utf-8-sig"))
        except UnicodeDecodeError:
            raise InvalidRequest(f"{self.where}: the line is not UTF-8 text") from None
        except json.JSONDecodeError as error:
            raise InvalidRequest(f"{self.where}: not JSON: {error.msg} at character {error.pos + 1}") from None
        except (RecursionError, ValueError) as error:
            raise InvalidRequest(f"{self.where}: not JSON that can be read: {error}") from None
        if not isinstance(row, dict):
            raise InvalidRequest(f"{self.where}: the line must hold a JSON object, not {self.kind(row)}")
        return row

    def text(self, row: Mapping[str, Any], key: str, field: str | None = None) -> str:
        """A text that must be there; it may be empty."""
        field = field or key
        if key not in row:
            self.fail(field, "is missing")
        value = row[key]
        if not isinstance(value, str):
            self.fail(field, f"must be text, not {self.kind(value)}")
        try:
            value.encode()
        except UnicodeEncodeError:
            self.fail(field, "holds half of a surrogate pair, which no tokenizer takes")
        return value

    def list_of(self, value: object, field: str) -> list[Any]:
        """A list that must be there."""
        if not isinstance(value, list):
            self.fail(field, "is missing" if value is None else f"must be a list, not {self.kind(value)}")
        return value

    def images(self, value: object, field: str) -> list[Path]:
        """One path, a list of paths, or nothing."""
        if value is None or value == "":
            return []
        if isinstance(value, str):
            return [self.image(value, field)]
        if not isinstance(value, list):
            self.fail(field, f"must be a path or a list of paths, not {self.kind(value)}")
        return [self.image(path, f"{field}[{index}]") for index, path in enumerate(value)]

    def image(self, value: object, field: str) -> Path:
        """The path of a picture, below ``image_root`` unless it is absolute."""
        if value is None:
            self.fail(field, "is missing")
        if not isinstance(value, str) or not value:
            self.fail(field, f"must be the path of a picture, not {self.kind(value)}")
        path = self.image_root / value
        if self.check_images and not path.is_file():
            self.fail(field, f"names a picture that is not there: {path}")
        return path

    def cells(self, value: object, field: str) -> tuple[int, ...] | None:
        """Numbers of visual tokens, or None."""
        if value is None:
            return None
        if not isinstance(value, list) or not value or not all(type(cell) is int and cell >= 0 for cell in value):
            self.fail(field, "must be a list of numbers of visual tokens, counted from 0")
        return tuple(value)

    def map_desc(self, value: object, field: str) -> tuple[tuple[int, ...], ...] | None:
        """Rows of a VSP maze, or None."""
        if value is None:
            return None
        if not isinstance(value, list) or not value or not all(isinstance(line, list) and line for line in value):
            self.fail(field, "must be a list of rows, each a list of numbers")
        if len({len(line) for line in value}) > 1:
            self.fail(field, "must have rows of one length")
        cells = [cell for line in value for cell in line]
        if not all(type(cell) is int and cell in MAP_CELLS for cell in cells):
            self.fail(field, "may hold 1 (start), 2 (goal), -1 (hole) and 0 (free) only")
        if cells.count(MAP_START) != 1 or MAP_GOAL not in cells:
            self.fail(field, "must have one start (1) and a goal (2)")
        return tuple(tuple(line) for line in value)

    def answer(self, value: object, field: str) -> str | None:
        """Text or None; a number, a natural way to write an answer down, becomes text."""
        if value is None or isinstance(value, str):
            return value
        if isinstance(value, bool) or not isinstance(value, int | float):
            self.fail(field, f"must be text or a number, not {self.kind(value)}")
        return json.dumps(value)
