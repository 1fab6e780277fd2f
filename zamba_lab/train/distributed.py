"""The processes that train one model: a single one, a copy of the model in each (DDP), or a shard in each (FSDP2). Start many by torchrun.

    torchrun --nproc-per-node 8 -m zamba_lab train mamba2-130m --data tokens/ --out runs/a --parallel fsdp --resume

The windows of a step are dealt to the processes (`Mixture.step_windows`); loss and gradient are those of one process with all of
them. Checkpoints hold full tensors under the model's names, written by process 0, so a run can be resumed by any number of
processes, and a corrupt file is known by its hash. That takes 12 bytes of process 0's memory a parameter (weights and two moments
in float32): 15 GB at 1.2B, 88 GB at 7.4B, gathered tensor by tensor; on resuming, every process reads the full file. Where a
machine has less, `save_sharded` and `load_sharded` write and read the shards where they are (torch.distributed.checkpoint);
the loop does not call them.

Tensor-parallel and context-parallel training are out of scope: a layer is computed by one process.
"""

import os
import warnings
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn

from zamba_lab.train.config import resolve_precision


class SingleProcess:
    """One process that holds everything. The others have the same methods, so the loop does not ask which it has."""

    rank, size = 0, 1

    @property
    def device(self) -> torch.device:
        """Where the model is to be."""
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")

    def wrap(self, model: nn.Module, config) -> nn.Module:
        """Prepare the model, before the optimiser is made; the result is called in its place in a training step."""
        return model

    def gradient_sync(self, module: nn.Module, last: bool) -> AbstractContextManager:
        """The context of one micro-batch: gradients are exchanged after the last of a step."""
        return nullcontext()

    def mean(self, value: Tensor) -> Tensor:
        """The mean over the processes."""
        return value

    def any(self, condition: bool) -> bool:
        """Whether the condition holds in any process."""
        return condition

    def clip(self, parameters: Iterable[nn.Parameter], limit: float) -> Tensor:
        """Scale the gradient to a norm of at most `limit`. Returns the norm before."""
        return nn.utils.clip_grad_norm_(parameters, limit)

    def full(self, value: Tensor) -> Tensor:
        """The full tensor of which this process may hold a shard."""
        return value

    def shard(self, value: Tensor, like: Tensor) -> Tensor:
        """The part of a full tensor that this process holds of `like`, on its device."""
        return value.to(like.device)

    def save(self, write: Callable, model: nn.Module, folder: Path) -> None:
        """Write the trained model, once."""
        write(model, folder)

    def barrier(self) -> None:
        """Wait for all processes."""

    def leave(self) -> None:
        """Part from the other processes, at the end."""


SINGLE = SingleProcess()


class DDP(SingleProcess):
    """Each process holds the model, and gradients are averaged. Needs a process group (`from_torchrun` makes one)."""

    def __init__(self):
        self.rank, self.size = dist.get_rank(), dist.get_world_size()

    @property
    def device(self) -> torch.device:
        return torch.device("cuda", torch.cuda.current_device()) if dist.get_backend() == "nccl" else torch.device("cpu")

    def wrap(self, model: nn.Module, config) -> nn.Module:
        return nn.parallel.DistributedDataParallel(model, gradient_as_bucket_view=True)

    def gradient_sync(self, module: nn.Module, last: bool) -> AbstractContextManager:
        return nullcontext() if last else module.no_sync()

    def mean(self, value: Tensor) -> Tensor:
        total = value.to(self.device, copy=True)
        dist.all_reduce(total)
        return total.to(value.device) / self.size

    def any(self, condition: bool) -> bool:
        return bool(self.mean(torch.tensor(float(condition))) > 0)

    def save(self, write: Callable, model: nn.Module, folder: Path) -> None:
        if self.rank == 0:
            write(model, folder)
        self.barrier()

    def barrier(self) -> None:
        dist.barrier()

    def leave(self) -> None:
        dist.destroy_process_group()  # else gloo's threads run while the interpreter ends, and it may abort


class FSDP(DDP):
    """Each process holds a shard of every weight, gradient and moment, and gathers a unit's weights while it runs.

    As with DDP, process 0's model is trained, whatever the others were given.

    In bf16 all weights of a unit are cast as they are gathered: also A_log, D, dt_bias and the norms, which autocast leaves
    in float32 for one process and for DDP. A dt_bias between -8 and -4 is then off by up to 1/64, and dt by as large a share of
    itself. The weights that are kept and updated are float32.

    The units: each layer with the parameters of its invocation (adapters, link), each shared block, once, and the rest (embedding,
    final norm, head). A shared block is gathered at its first invocation and stays until the end of the forward pass, because
    the next invocation is near; its gradient is complete, and sent, when the first invocation's is done.
    """

    def wrap(self, model: nn.Module, config) -> nn.Module:
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method

        # FSDP warns of in-place changes to what a unit returns: there are none here, and tests compare the gradients
        warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view")
        bf16 = resolve_precision(config.precision, self.device) == "bf16"
        policy = MixedPrecisionPolicy(torch.bfloat16, torch.float32) if bf16 else MixedPrecisionPolicy()
        options = {"mesh": init_device_mesh(self.device.type, (self.size,)), "mp_policy": policy}
        with torch.no_grad():  # as DDP does: shards of different initial weights would not fit together
            for value in (*model.parameters(), *model.buffers()):
                dist.broadcast(value, src=0)
        for block in model.shared_blocks:
            fully_shard(block, reshard_after_forward=False, **options)
        for layer in model.layers:
            fully_shard(layer, **options)
        fully_shard(model, **options)
        register_fsdp_forward_method(model, "extend")
        return model

    @contextmanager
    def gradient_sync(self, module: nn.Module, last: bool):
        module.set_requires_gradient_sync(last)
        yield

    def clip(self, parameters: Iterable[nn.Parameter], limit: float) -> Tensor:
        norm = nn.utils.clip_grad_norm_(parameters, limit)
        return norm.full_tensor() if hasattr(norm, "full_tensor") else norm

    def full(self, value: Tensor) -> Tensor:
        """The full tensor in process 0; the others take part and keep nothing."""
        gathered = value.full_tensor() if hasattr(value, "full_tensor") else value
        return gathered.cpu() if self.rank == 0 else gathered.new_empty(0)

    def shard(self, value: Tensor, like: Tensor) -> Tensor:
        from torch.distributed.tensor import distribute_tensor

        if not hasattr(like, "device_mesh"):
            return value.to(like.device)
        return distribute_tensor(value.to(like.device), like.device_mesh, like.placements)

    def save(self, write: Callable, model: nn.Module, folder: Path) -> None:
        """The full model is assembled in process 0."""
        from zamba_lab.model import Zamba

        state = {name: self.full(value) for name, value in model.state_dict().items()}
        if self.rank == 0:
            with torch.device("meta"):
                assembled = Zamba(model.config)
            assembled.load_state_dict(state, assign=True)
            assembled.tokenizer = model.tokenizer
            write(assembled, folder)
        self.barrier()


PARALLEL = {"ddp": DDP, "fsdp": FSDP}


def from_torchrun(kind: str) -> DDP:
    """Join the processes that torchrun started. kind: of PARALLEL. Raises ValueError if torchrun did not start this one."""
    if "RANK" not in os.environ:
        raise ValueError("--parallel needs several processes: torchrun --nproc-per-node N -m zamba_lab train ...")
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    return PARALLEL[kind]()


def save_sharded(folder: str | Path, model: nn.Module, optimiser: torch.optim.Optimizer) -> None:
    """Weights and moments by torch.distributed.checkpoint: every process writes its shards. A single process may, too."""
    import torch.distributed.checkpoint as dcp

    dcp.save(_state_by_kind(model, optimiser), checkpoint_id=Path(folder), no_dist=not dist.is_initialized())


def load_sharded(folder: str | Path, model: nn.Module, optimiser: torch.optim.Optimizer) -> None:
    """Fill model and optimiser with what `save_sharded` wrote, by any number and kind of processes, for the same config."""
    import torch.distributed.checkpoint as dcp
    from torch.distributed.checkpoint.state_dict import set_state_dict

    state = _state_by_kind(model, optimiser)
    dcp.load(state, checkpoint_id=Path(folder), no_dist=not dist.is_initialized())
    set_state_dict(model, optimiser, model_state_dict=state["model"], optim_state_dict=state["optimiser"])


def _state_by_kind(model: nn.Module, optimiser: torch.optim.Optimizer) -> dict:
    from torch.distributed.checkpoint.state_dict import get_state_dict

    weights, moments = get_state_dict(model, optimiser)
    return {"model": weights, "optimiser": moments}
