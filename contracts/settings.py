"""What the settings of all processes have in common: a misspelt variable stops the start."""

import difflib
import os
from collections.abc import Iterable

from contracts.errors import BadSettings


def refuse_unknown_variables(prefix: str, names: Iterable[str]) -> None:
    """Raises ``BadSettings`` if the environment has a variable with this prefix that is no setting's."""
    known = [prefix + name.upper() for name in names]
    for name in os.environ:
        if name.upper().startswith(prefix) and name.upper() not in known:
            close = difflib.get_close_matches(name.upper(), known, n=1)
            hint = f"; did you mean {close[0]}?" if close else ""
            raise BadSettings(f"{name} is not a setting{hint}")
