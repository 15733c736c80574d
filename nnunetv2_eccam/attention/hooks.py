"""Looking into a network while it runs, by hooks that leave it as it was."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from nnunetv2_eccam.errors import UserError


class Call(NamedTuple):
    """One call of a module, as a forward hook sees it: its positional arguments and what it returned."""

    module: Any
    inputs: tuple[Any, ...]
    output: Any


Read = Callable[[Call], Any]


class _Enough(Exception):
    """Everything that was asked for has been read; the rest of the network need not run."""


@contextmanager
def hooked(reads: Iterable[tuple[nn.Module, Read]]) -> Iterator[None]:
    """Read modules at every call within the block; what a read returns replaces the output, unless it is None."""

    def hook(read: Read, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> Any:
        return read(Call(module, inputs, output))

    handles = [module.register_forward_hook(partial(hook, read)) for module, read in reads]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def record(network: nn.Module, tiles: Tensor, reads: Sequence[tuple[nn.Module, Read]]) -> list[Any]:
    """Run a network on tiles, ``(B, C, *tile)``, read modules at their first call, then stop it; give what was read.

    Raises:
        UserError: the network did not call one of the modules.
    """
    kept: dict[int, Any] = {}

    def keep(index: int, read: Read, call: Call) -> None:
        kept.setdefault(index, read(call))
        if len(kept) == len(reads):
            raise _Enough

    hooks = hooked((module, partial(keep, index, read)) for index, (module, read) in enumerate(reads))
    with suppress(_Enough), torch.no_grad(), hooks:
        network(tiles)
    for index, (module, _) in enumerate(reads):
        if index not in kept:
            raise UserError(f"{type(network).__name__} does not call its {type(module).__name__} when it predicts")
    return [kept[index] for index in range(len(reads))]


def layer_named(network: nn.Module, name: str) -> nn.Module:
    """Give the module of a network by its dotted name.

    Raises:
        UserError: there is none; the message lists those of the first two levels.
    """
    try:
        return network.get_submodule(name)
    except AttributeError:
        known = [path for path, _ in network.named_modules() if path and path.count(".") < 2]
        raise UserError(
            f"{type(network).__name__} has no layer {name}; it has {', '.join(known)}, and what these contain"
        ) from None
