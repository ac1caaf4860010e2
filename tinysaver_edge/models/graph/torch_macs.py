"""Count the multiply-accumulates (MACs) of a torch model by running it once."""

from __future__ import annotations

from typing import Any, TypeAlias

Module: TypeAlias = Any  # torch.nn.Module


def count_module_macs(module: Module, shape: tuple[int, int, int, int]) -> int:
    """Count what one run costs: convolutions and matrix products, as `macs.count_macs` does.

    See `module_macs_by_operation`.
    """
    return sum(module_macs_by_operation(module, shape).values())


def module_macs_by_operation(module: Module, shape: tuple[int, int, int, int]) -> dict[str, int]:
    """Count what one run costs, by torch's names of the operations.

    Args:
        module: a torch model in evaluation mode, on the CPU or the meta device.
        shape: of its input, for one sample.

    Raises:
        MissingDependencyError: torch is not installed.
    """
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    counter = FlopCounterMode(display=False)
    # Attention in one piece is not counted; taken apart into matrix products it is.
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
        module(torch.zeros(shape))
    counted = counter.get_flop_counts().get("Global", {})
    return {str(operation): int(flops) // 2 for operation, flops in counted.items()}
