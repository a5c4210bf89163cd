"""What each of two processes runs for ``test_trainer_processes``: several runs in turn, to pay for one start only.

usage: two_processes.py FOLDER, with base model and data in it. FOLDER/runs.json maps names of runs to their recipe's
changes, ``fsdp2`` and arguments of ``Workplace.run``; their metrics go to FOLDER/NAME/metrics.jsonl.
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import PartialState
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
from torch.distributed.fsdp import FSDPModule

from tests.training.base_folder import Workplace, recipe
from training import accelerators


def sharded_accelerator(**given: Any) -> Accelerator:
    """FSDP2 over gloo. Accelerate takes FSDP for GPUs only, so that it has to be told."""
    accelerator = Accelerator(**given)
    plugin = FullyShardedDataParallelPlugin(
        fsdp_version=2,
        auto_wrap_policy="transformer_based_wrap",
        transformer_cls_names_to_wrap=["Qwen2_5_VLDecoderLayer"],
        cpu_ram_efficient_loading=False,
        state_dict_type="SHARDED_STATE_DICT",
        reshard_after_forward=True,
    )
    PartialState._shared_state["distributed_type"] = DistributedType.FSDP
    accelerator.state.distributed_type = DistributedType.FSDP
    accelerator.state.fsdp_plugin = plugin
    prepare = accelerator.prepare

    def prepared(*given: Any) -> Any:
        made = prepare(*given)
        if accelerator.is_main_process:
            write_plan(made[0], Path(sys.argv[1]) / "plan.json")
        return made

    accelerator.prepare = prepared
    return accelerator


def write_plan(wrapped: Any, file: Path) -> None:
    """What FSDP2 made of the lesson: how many units, and how many numbers the first rank holds."""
    units = [module for module in wrapped.modules() if isinstance(module, FSDPModule)]
    held = sum(parameter.to_local().numel() for parameter in wrapped.parameters())
    plans = json.loads(file.read_text()) if file.exists() else []
    file.write_text(json.dumps([*plans, {"units": len(units), "held": held}]))


def main(folder: Path) -> None:
    made = Workplace(folder, folder / "base", folder / "train.jsonl")
    for name, wanted in json.loads((folder / "runs.json").read_text()).items():
        accelerators.Accelerator = sharded_accelerator if wanted["fsdp2"] else Accelerator
        made.run(wanted.get("out", name), recipe(**wanted["recipe"]), **wanted.get("run", {}))
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
