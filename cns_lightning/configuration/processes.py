"""How many processes a run has, whether they know of each other, and how they exchange what they train."""

from __future__ import annotations

import os

import torch
from jsonargparse import Namespace
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from cns_lightning.errors import UserError
from cns_lightning.slurm.job import check_tasks, is_task

STAGED_DDP = "cns_lightning.training.strategy.StagedDDP"


def choose_strategy(trainer: Namespace) -> None:
    """Puts the one strategy that can exchange a stage's vectors where several processes are asked for.

    Raises:
        UserError: if another strategy is named, or SLURM has started other processes than these.
    """
    processes = process_count(trainer)
    named = trainer.strategy if isinstance(trainer.strategy, str) else trainer.strategy.class_path
    if named not in ("auto", "ddp", STAGED_DDP):
        raise UserError(
            "trainer.strategy",
            f"is {named}, which cannot exchange what a stage trains",
            "Leave it at auto; one stage trains so little that every device holds it whole",
        )
    check_tasks(processes)
    # Stock DDP would wrap a stage that is continued, and wait for gradients of what never has any.
    trainer.strategy = "auto"
    if processes > 1:
        trainer.strategy = Namespace(class_path=STAGED_DDP, init_args=Namespace())


def process_count(trainer: Namespace) -> int:
    """Returns the number of processes that the trainer's settings mean, over all machines."""
    devices = trainer.devices
    if isinstance(devices, list):
        return len(devices) * trainer.num_nodes
    if str(devices) in ("auto", "-1"):
        is_processor = trainer.accelerator == "cpu" or not torch.cuda.is_available()
        return (1 if is_processor else torch.cuda.device_count()) * trainer.num_nodes
    parts = [part for part in str(devices).split(",") if part]
    if not parts or not all(part.strip().isdecimal() for part in parts):
        raise UserError("trainer.devices", f"is {devices}, a number or auto is needed", "Write 1, 2, ... or auto")
    return (len(parts) if "," in str(devices) else int(devices)) * trainer.num_nodes


def check_group(processes: int, nodes: int) -> None:
    """Refuses processes that do not know of each other, and forgets what an earlier group has left in the shell.

    Args:
        processes: number of processes of the run, over all machines.
        nodes: number of machines.

    Raises:
        UserError: if torchrun has started another number of processes, or nothing says which machine this is.
    """
    if "TORCHELASTIC_RUN_ID" in os.environ:
        if (started := os.environ.get("WORLD_SIZE")) != str(processes):
            where, problem = (
                "trainer.devices x trainer.num_nodes",
                f"is {processes}, and torchrun has started {started}",
            )
            raise UserError(where, f"{problem} processes", "Let --nproc-per-node and --nnodes of torchrun say the same")
    elif processes == 1:
        for name in ("RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "WORLD_SIZE"):
            os.environ.pop(name, None)
        rank_zero_only.rank = 0
    elif nodes > 1 and not is_task() and not {"NODE_RANK", "GROUP_RANK"} & os.environ.keys():
        problem = f"is {nodes}, and nothing says which of the machines this is; it would wait for the others"
        remedy = "Use launch (SLURM) or torchrun, or set MASTER_ADDR, MASTER_PORT and NODE_RANK on each"
        raise UserError("trainer.num_nodes", problem, remedy)
