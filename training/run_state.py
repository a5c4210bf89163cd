"""What a run goes on from: parameters, optimizer, teacher and random states by Accelerate, and what run it is."""

import json
import logging
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from accelerate import Accelerator  # type: ignore[import-untyped]

from contracts.errors import BadCheckpoint, BadSettings
from contracts.manifest import read_json
from training.checkpoint_folders import STATE
from training.data_order import DataOrder
from training.recipes import StageRecipe

STATE_FILE = "run.json"
# May change when a run goes on: they decide nothing that was computed.
FREE_KEYS = ("name", "save_every_steps", "keep_checkpoints", "gradient_checkpointing", "saved_dtype", "attention")
# May change with the number of processes, as long as a step has as many samples as before.
SHARED_KEYS = ("accumulation",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """What must be the same where a run goes on."""

    recipe: dict[str, Any]
    samples_per_step: int
    num_samples: int
    data_sha256: str
    base_sha256: str

    @classmethod
    def of(cls, recipe: StageRecipe, order: DataOrder, data_sha256: str, base_sha256: str) -> "Identity":
        return cls(
            # As JSON gives it back: tuples become lists.
            recipe=json.loads(json.dumps(asdict(recipe))),
            samples_per_step=order.samples_per_step,
            num_samples=order.num_samples,
            data_sha256=data_sha256,
            base_sha256=base_sha256,
        )

    def described(self) -> dict[str, Any]:
        """For a manifest."""
        return asdict(self)

    def check(self, saved: dict[str, Any], where: Path) -> None:
        """Raises ``BadSettings`` naming the first thing that differs from what ``described`` gave."""
        mine = self.described()
        before, now = saved.get("recipe", {}), mine.pop("recipe")
        for key in now:
            if key not in FREE_KEYS + SHARED_KEYS and before.get(key) != now[key]:
                raise BadSettings(
                    f"{where} was made with {key} {before.get(key)!r}, not {now[key]!r}; start another run"
                )
        for key, value in mine.items():
            if saved.get(key) != value:
                raise BadSettings(
                    f"{where}: {key} was {saved.get(key)!r} and is {value!r} now; a run goes on with the same base "
                    "model and data, and with as many samples in a step"
                )


def save_state(accelerator: Accelerator, folder: Path, identity: Identity, step: int) -> None:
    """Into ``folder/state``; all processes call it."""
    state = folder / STATE
    # A head that is the embedding is written once, as it should be; Accelerate warns of it every time.
    logger = logging.getLogger("accelerate")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        accelerator.save_state(str(state))
    finally:
        logger.setLevel(level)
    if accelerator.is_main_process:
        content = {"step": step, **identity.described()}
        (state / STATE_FILE).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def load_state(accelerator: Accelerator, folder: Path, identity: Identity) -> int:
    """The step after which the state in ``folder/state`` was saved; all processes call it.

    Raises:
        BadCheckpoint: there is no state, or it cannot be read.
        BadSettings: it is of another run.
    """
    saved = read_json(folder / STATE / STATE_FILE)
    identity.check(saved, folder)
    try:
        accelerator.load_state(str(folder / STATE))
    except (OSError, RuntimeError, ValueError) as error:
        raise BadCheckpoint(f"{folder / STATE} cannot be loaded: {' '.join(str(error).split())}") from error
    return int(saved["step"])
