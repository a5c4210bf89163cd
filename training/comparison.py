"""Differences between computed and recorded quantities, collected into one table."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

# Relative. Losses and norms of gradients by their own size, vectors by their largest component: float32 sums in another
# order differ by about 1e-6.
NUMBER_BOUND = 1e-4
VECTOR_BOUND = 1e-4


@dataclass(slots=True)
class Row:
    """The largest difference found in one quantity, and what it may be; exact quantities count what differs."""

    bound: float
    largest: float = 0.0
    where: str = ""
    compared: int = 0


class Comparison:
    """Collects differences by quantity."""

    def __init__(self) -> None:
        self.rows: dict[str, Row] = {}

    def exact(self, name: str, got: Any, want: Any, where: str) -> None:
        """Equal, element by element."""
        self._add(name, 0.0, float(got != want), where)

    def number(self, name: str, got: float, want: float, where: str) -> None:
        """Relative difference of two numbers."""
        self._add(name, NUMBER_BOUND, abs(got - want) / max(abs(want), 1e-12), where)

    def vector(self, name: str, got: Tensor, want: np.ndarray, where: str) -> None:
        """Largest difference of a component, relative to the largest component."""
        expected = torch.from_numpy(want)
        if got.shape != expected.shape:
            self._add(name, VECTOR_BOUND, float("inf"), f"{where}: shape {tuple(got.shape)}, not {tuple(want.shape)}")
            return
        scale = max(float(expected.abs().max()), 1e-12) if expected.numel() else 1.0
        difference = float((got.detach() - expected).abs().max()) if expected.numel() else 0.0
        self._add(name, VECTOR_BOUND, difference / scale, where)

    @property
    def failed(self) -> list[str]:
        """Quantities beyond their bound, or never compared."""
        return [name for name, row in self.rows.items() if row.largest > row.bound or not row.compared]

    def table(self) -> str:
        """One line for each quantity."""
        lines = [f"{'quantity':34} {'compared':>8} {'largest':>10} {'bound':>8}  where"]
        for name, row in self.rows.items():
            verdict = "  WRONG" if name in self.failed else ""
            lines.append(f"{name:34} {row.compared:8} {row.largest:10.2e} {row.bound:8.0e}  {row.where}{verdict}")
        return "\n".join(lines)

    def _add(self, name: str, bound: float, difference: float, where: str) -> None:
        row = self.rows.setdefault(name, Row(bound))
        row.compared += 1
        if math.isnan(difference):
            difference = math.inf  # what is no number is as wrong as can be, and stays so whatever comes after
        if difference > row.largest:
            row.largest, row.where = difference, where
