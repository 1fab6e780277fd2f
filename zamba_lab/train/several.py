"""Many processes that train one model: a copy in each (DDP), or a part in each (FSDP2). Start them with torchrun.

    torchrun --nproc-per-node 8 -m zamba_lab train mamba2-130m --data tokens/ --out runs/a --parallel fsdp

A step's windows are dealt to the processes (`Mixture.step_windows`); loss and gradient are those of one process with all of
them. Checkpoints hold whole tensors under the model's names, written by process 0, so a run goes on with any number of
processes, and a spoilt one is known by its hash. That takes 12 bytes of process 0's memory a parameter (weights and two moments
in float32): 15 GB at 1.2B, 88 GB at 7.4B, tensor by tensor from the devices; when a run goes on, every process reads the
whole file. Where a machine has less, `save_sharded` and `load_sharded` write and read the parts where they lie
(torch.distributed.checkpoint); the loop does not call them.

Tensor-parallel and context-parallel training are out of scope: a layer is computed by one process.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterable
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import ContextManager

import torch
import torch.distributed as dist
from torch import Tensor, nn

from zamba_lab.train.step import resolved
from zamba_lab.train.team import Alone


class Ddp(Alone):
    """Each process holds the model, and gradients are averaged. Needs a process group (`from_torchrun` makes one)."""

    def __init__(self):
        self.rank, self.size = dist.get_rank(), dist.get_world_size()

    @property
    def device(self) -> torch.device:
        return torch.device("cuda", torch.cuda.current_device()) if dist.get_backend() == "nccl" else torch.device("cpu")

    def wrap(self, model: nn.Module, config) -> nn.Module:
        return nn.parallel.DistributedDataParallel(model, gradient_as_bucket_view=True)

    def syncing(self, module: nn.Module, last: bool) -> ContextManager:
        return nullcontext() if last else module.no_sync()

    def mean(self, value: Tensor) -> Tensor:
        shared = value.to(self.device, copy=True)
        dist.all_reduce(shared)
        return shared.to(value.device) / self.size

    def any(self, said: bool) -> bool:
        return bool(self.mean(torch.tensor(float(said))) > 0)

    def save(self, write: Callable, model: nn.Module, folder: Path) -> None:
        if self.rank == 0:
            write(model, folder)
        self.wait()

    def wait(self) -> None:
        dist.barrier()


class Fsdp(Ddp):
    """Each process holds a part of every weight, gradient and moment, and gathers a unit's weights while it runs.

    As with DDP, what is trained is process 0's model, whatever the others were given.

    In bf16 a unit's weights are cast as they are gathered, all of them: A_log, D, dt_bias and the norms, too, which autocast leaves
    in float32 for one process and for DDP. A dt_bias between -8 and -4 is then off by up to 1/64, and dt by as large a share of
    itself. The weights that are kept and updated are float32.

    The units: each layer with what its invocation owns (adapters, link), each shared block, once, and the rest (embedding,
    final norm, head). A shared block is gathered at its first invocation and stays until the end of the forward pass,
    as the next invocation is not far; its gradient is complete, and goes out, when the first invocation's is done.
    """

    def wrap(self, model: nn.Module, config) -> nn.Module:
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method

        # it warns of in-place changes to what a unit returns: there are none here, and tests hold the gradients
        warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view")
        with_bf16 = resolved(config.precision, self.device) == "bf16"
        policy = MixedPrecisionPolicy(torch.bfloat16, torch.float32) if with_bf16 else MixedPrecisionPolicy()
        how = {"mesh": init_device_mesh(self.device.type, (self.size,)), "mp_policy": policy}
        with torch.no_grad():  # as DDP does: were each to begin with its own, the parts would not fit
            for value in (*model.parameters(), *model.buffers()):
                dist.broadcast(value, src=0)
        for block in model.shared_blocks:
            fully_shard(block, reshard_after_forward=False, **how)
        for layer in model.layers:
            fully_shard(layer, **how)
        fully_shard(model, **how)
        register_fsdp_forward_method(model, "extend")
        return model

    @contextmanager
    def syncing(self, module: nn.Module, last: bool):
        module.set_requires_gradient_sync(last)
        yield

    def clip(self, parameters: Iterable[nn.Parameter], most: float) -> Tensor:
        """The norm of a gradient in parts is itself in parts until it is asked for whole."""
        norm = nn.utils.clip_grad_norm_(parameters, most)
        return norm.full_tensor() if hasattr(norm, "full_tensor") else norm

    def whole(self, value: Tensor) -> Tensor:
        """All of it in process 0; the others take part and keep nothing."""
        full = value.full_tensor() if hasattr(value, "full_tensor") else value
        return full.cpu() if self.rank == 0 else full.new_empty(0)

    def placed(self, value: Tensor, like: Tensor) -> Tensor:
        from torch.distributed.tensor import distribute_tensor

        if not hasattr(like, "device_mesh"):
            return value.to(like.device)
        return distribute_tensor(value.to(like.device), like.device_mesh, like.placements)

    def save(self, write: Callable, model: nn.Module, folder: Path) -> None:
        """The whole model is put together in process 0."""
        from zamba_lab.model import Zamba

        state = {name: self.whole(value) for name, value in model.state_dict().items()}
        if self.rank == 0:
            with torch.device("meta"):
                whole = Zamba(model.config)
            whole.load_state_dict(state, assign=True)
            whole.tokenizer = model.tokenizer
            write(whole, folder)
        self.wait()


TEAMS = {"ddp": Ddp, "fsdp": Fsdp}


def from_torchrun(kind: str) -> Ddp:
    """Join the processes that torchrun started. Raises ValueError if it did not start this one."""
    if "RANK" not in os.environ:
        raise ValueError("--parallel needs several processes: torchrun --nproc-per-node N -m zamba_lab train ...")
    with_gpus = torch.cuda.is_available()
    if with_gpus:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if with_gpus else "gloo")
    return TEAMS[kind]()


def save_sharded(folder: str | Path, model: nn.Module, optimiser: torch.optim.Optimizer) -> None:
    """Weights and moments by torch.distributed.checkpoint: every process writes what it holds. One process may, too."""
    import torch.distributed.checkpoint as dcp

    dcp.save(_parts(model, optimiser), checkpoint_id=Path(folder), no_dist=not dist.is_initialized())


def load_sharded(folder: str | Path, model: nn.Module, optimiser: torch.optim.Optimizer) -> None:
    """What `save_sharded` wrote, with any number of processes and any kind of team, into a model of the same config."""
    import torch.distributed.checkpoint as dcp
    from torch.distributed.checkpoint.state_dict import set_state_dict

    parts = _parts(model, optimiser)
    dcp.load(parts, checkpoint_id=Path(folder), no_dist=not dist.is_initialized())
    set_state_dict(model, optimiser, model_state_dict=parts["model"], optim_state_dict=parts["optimiser"])


def _parts(model: nn.Module, optimiser: torch.optim.Optimizer) -> dict:
    from torch.distributed.checkpoint.state_dict import get_state_dict

    weights, moments = get_state_dict(model, optimiser)
    return {"model": weights, "optimiser": moments}
