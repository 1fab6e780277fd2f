"""Whether a module's own result may be left out: two operations become one only where nobody would see the difference."""

from torch import nn
from torch.nn.modules import module as every_module


def watched(*modules: nn.Module) -> bool:
    """Whether somebody may look at what one of these modules gives or gets: by a hook, or by a forward put in its place."""
    return bool(
        every_module._global_forward_hooks
        or every_module._global_forward_pre_hooks
        or every_module._global_backward_hooks
        or every_module._global_backward_pre_hooks
    ) or any(
        "forward" in one.__dict__ or one._forward_hooks or one._forward_pre_hooks or one._backward_hooks or one._backward_pre_hooks
        for one in modules
    )
