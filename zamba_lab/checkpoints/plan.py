"""Before anything is read: which stored tensor goes into which parameter, from names and shapes alone."""

from dataclasses import dataclass

import torch
from torch.overrides import TorchFunctionMode

from zamba_lab.checkpoints.binding import Binding, bind, spare_names, stored_shapes
from zamba_lab.checkpoints.errors import CheckpointError
from zamba_lab.checkpoints.files import CONFIG, DTYPES, Header
from zamba_lab.checkpoints.layouts import Layout
from zamba_lab.config import ZambaConfig
from zamba_lab.model import Zamba


@dataclass(frozen=True)
class Plan:
    """A model on the meta device, and what to read for which of its parameters.

    steps: each binding with the names its stored tensors have in this file: the one to read first, then copies of it.
    spares: names that are stored and not needed. missing, left_over, wrong_shape, wrong_dtype: what does not fit; all
    empty if everything does.
    """

    model: Zamba
    layout: Layout
    config: ZambaConfig
    steps: list[tuple[Binding, list[tuple[str, ...]]]]
    spares: list[str]
    missing: list[str]
    left_over: list[str]
    wrong_shape: dict[str, str]
    wrong_dtype: dict[str, str]

    def check(self, where: str) -> "Plan":
        """This plan, if everything fits; else CheckpointError with the lists."""
        if self.missing or self.left_over or self.wrong_shape:
            count = self.config.n_shared_blocks
            block = self.layout.block.format(b=count, i=-1) + "."  # the first that there should not be
            more = any(name.startswith(block) for name in self.left_over)
            why = f"; num_mem_blocks is {count} there (1 where it is absent), and {block[:-1]} is one block more" * more
            raise CheckpointError(
                f"{where!r} does not fit its {CONFIG} (layout: {self.layout.name}){why}", self.missing, self.left_over, self.wrong_shape
            )
        if self.wrong_dtype:
            first = dict(list(self.wrong_dtype.items())[:5])
            raise CheckpointError(
                f"weights must be stored as one of {', '.join(DTYPES)}; quantised files are not "
                f"read: got {first} and {len(self.wrong_dtype) - len(first)} more"
            )
        return self


def make_plan(layout: Layout, config: ZambaConfig, headers: dict[str, Header]) -> "Plan":
    """Compare what is stored with what the config needs. CheckpointError if no model can be built of the config."""
    if config.n_layers > len(headers):
        raise CheckpointError(f"the weights do not fit their {CONFIG}: {config.n_layers} layers, but only {len(headers)} stored tensors")
    model = on_meta(config)
    parameters = dict(model.named_parameters())
    steps, expected, missing = [], {}, []  # expected: stored name -> the shape that it must have
    for binding in bind(layout, config, parameters):
        shapes = stored_shapes(binding, parameters, config)
        stored_names = [tuple(name for name in names if name in headers) for names in binding.stored]
        missing += [names[0] for names, stored in zip(binding.stored, stored_names) if not stored]
        expected |= {name: shape for names, shape in zip(stored_names, shapes) for name in names}
        steps.append((binding, stored_names))
    spares = {
        name: tuple(parameters[ours].shape) for name, ours in spare_names(layout, config).items() if ours in parameters and name in headers
    }
    expected |= spares
    wrong_shape = {name: f"is {headers[name].shape}, must be {shape}" for name, shape in expected.items() if headers[name].shape != shape}
    wrong_dtype = {name: headers[name].dtype for name in expected if headers[name].dtype not in DTYPES}
    left_over = sorted(set(headers) - set(expected))
    return Plan(model, layout, config, steps, list(spares), missing, left_over, wrong_shape, wrong_dtype)


class _Unfilled(TorchFunctionMode):
    """Leaves new parameters unfilled. On the meta device there is nothing to fill, but trying imports a compiler."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func.__name__ in ("normal_", "uniform_", "kaiming_uniform_"):
            return args[0] if args else None
        return func(*args, **(kwargs or {}))


def on_meta(config: ZambaConfig) -> Zamba:
    """The model of a config with names and shapes but no memory. CheckpointError if there can be none."""
    try:
        with torch.device("meta"), _Unfilled():
            return Zamba(config)
    except (RuntimeError, TypeError, OverflowError, MemoryError) as error:  # torch's words for sizes that are too large
        raise CheckpointError(f"no model can be built of this {CONFIG}: {str(error).splitlines()[0]}") from error
