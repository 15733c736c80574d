"""nnU-Net's plans to the arguments of :class:`ECCaMUNet`, for a configuration made for any U-Net."""

from __future__ import annotations

import importlib
import inspect
import pydoc
from collections.abc import Mapping, Sequence
from typing import Any, cast

from nnunetv2_eccam.architectures.compared.network import BackboneNetwork
from nnunetv2_eccam.architectures.eccam_unet import ECCaMUNet, stages_with_attention
from nnunetv2_eccam.architectures.origin import Origin, plain
from nnunetv2_eccam.architectures.padding import PadsToMultiple
from nnunetv2_eccam.architectures.unet_plan import UNetPlan, per_stage_and_axis
from nnunetv2_eccam.blocks.multi_scale import dilations_for
from nnunetv2_eccam.errors import UserError

PAPER_STAGES = 5
"""The paper's depth (III)."""

CLASS_NAME = f"{ECCaMUNet.__module__}.{ECCaMUNet.__qualname__}"

_CONSTRUCTOR = inspect.signature(ECCaMUNet).parameters
SWITCHES = frozenset(_CONSTRUCTOR) - {"input_channels", "num_classes", "deep_supervision"}
"""The arguments that a plans file or a trainer may set; nnU-Net gives the other three."""

_DEFAULTS = {
    name: parameter.default
    for name, parameter in _CONSTRUCTOR.items()
    if name in SWITCHES and parameter.default is not inspect.Parameter.empty
}

_OF_A_UNET = frozenset(inspect.signature(UNetPlan.of).parameters)


def network_arguments(
    architecture: Mapping[str, Any],
    patch_size: Sequence[int],
    switches: Mapping[str, Any] | None = None,
    max_stages: int | None = None,
) -> dict[str, Any]:
    """Turn a configuration's architecture into :class:`ECCaMUNet`'s arguments.

    A configuration written for ``ECCaMUNet`` is taken as it is. One of nnU-Net's own (``PlainConvUNet``,
    or ``ResidualEncoderUNet``, of which stages, widths, kernels, strides, norm and nonlinearity are taken)
    is cut to ``max_stages``, with two convolutions a stage where it counts residual blocks, and the rates of
    MuS are scaled to its bottleneck.

    Args:
        architecture: the configuration's ``architecture`` entry: ``network_class_name``, ``arch_kwargs``,
            ``_kw_requires_import``.
        patch_size: the configuration's patch, voxels per axis.
        switches: arguments that go before the configuration's, from the trainer.
        max_stages: stages of nnU-Net's own configurations to keep at most; None: all of them.

    Returns:
        arguments as a plans file states them: classes are dotted names.

    Raises:
        UserError: an argument that the network does not have.
    """
    arguments = dict(architecture["arch_kwargs"])
    if architecture["network_class_name"] != CLASS_NAME:
        arguments = cut_to_depth(arguments, max_stages)
    arguments.update(switches or {})
    if unknown := sorted(set(arguments) - SWITCHES):
        raise UserError(
            f"the plans give the network {', '.join(unknown)}, which EC-CaM-UNet does not know; "
            f"it knows {', '.join(sorted(SWITCHES))}"
        )
    arguments["dilations"] = _dilations(arguments, patch_size)
    return arguments


def _dilations(arguments: Mapping[str, Any], patch_size: Sequence[int]) -> Any:
    """Give the rates of MuS: those that are stated, for the deepest stage, or the paper's scaled to each place."""
    stated = arguments.get("dilations")
    if isinstance(stated, Mapping):
        return stated
    strides = per_stage_and_axis("strides", arguments["strides"], int(arguments["n_stages"]), len(patch_size))
    deepest = len(strides) - 1
    stages = stages_with_attention(arguments.get("attention_stages", "deepest"), strides)
    rates = {
        str(stage): stated
        if stage == deepest and stated is not None
        else plain(dilations_for(bottleneck_size(patch_size, strides[: stage + 1])))
        for stage in stages
    }
    return rates[str(deepest)] if stages == [deepest] else rates


def cut_to_depth(arguments: Mapping[str, Any], max_stages: int | None = None) -> dict[str, Any]:
    """Keep the first stages of a U-Net's arguments, and of the arguments what this network shares with it.

    Args:
        arguments: ``arch_kwargs`` of a U-Net in nnU-Net's plans.
        max_stages: stages to keep at most; None: all.
    """
    n_stages = int(arguments["n_stages"])
    if max_stages is not None:
        n_stages = min(n_stages, max_stages)
    kept = {name: value for name, value in arguments.items() if name in SWITCHES}
    kept["n_stages"] = n_stages
    for name in ("features_per_stage", "kernel_sizes", "strides"):
        kept[name] = _first(arguments[name], n_stages)
    if "n_blocks_per_stage" in arguments:  # residual blocks, of two convolutions each
        kept["n_conv_per_stage"] = kept["n_conv_per_stage_decoder"] = 2
    else:
        kept["n_conv_per_stage"] = _first(arguments["n_conv_per_stage"], n_stages)
        decoder = arguments["n_conv_per_stage_decoder"]
        # The decoder's entries begin at the lowest resolution, so its first ones go.
        kept["n_conv_per_stage_decoder"] = decoder if isinstance(decoder, int) else list(decoder)[1 - n_stages :]
    return kept


def _first(value: Any, n_stages: int) -> Any:
    return value if isinstance(value, int) else list(value)[:n_stages]


def bottleneck_size(patch_size: Sequence[int], strides: Sequence[Sequence[int]]) -> list[int]:
    """Give the size of the last stage's map for a patch."""
    size = list(patch_size)
    for stride in strides:
        steps = [stride] * len(size) if isinstance(stride, int) else stride
        size = [n // step for n, step in zip(size, steps, strict=True)]
    return size


def build_network(
    architecture: Mapping[str, Any],
    patch_size: Sequence[int],
    input_channels: int,
    num_classes: int,
    deep_supervision: bool,
    switches: Mapping[str, Any] | None = None,
    network: str = CLASS_NAME,
    max_stages: int | None = None,
) -> PadsToMultiple:
    """Build and initialise the network of a configuration.

    Args:
        architecture: see :func:`network_arguments`.
        patch_size: see :func:`network_arguments`.
        input_channels: channels of the image.
        num_classes: logit maps.
        deep_supervision: whether all side outputs are given. The heads exist either way, so that weights
            trained with it load into a network built without it, as nnU-Net does for prediction.
        switches: see :func:`network_arguments`.
        network: dotted path of the network's class, ``ECCaMUNet`` or a ``ComparedNetwork``, which is built
            from what the arguments say of a U-Net's stages.
        max_stages: see :func:`network_arguments`.

    Raises:
        UserError: an argument that the network does not have, or a library that it needs is missing.
    """
    stated = network_arguments(architecture, patch_size, switches, max_stages)
    arguments = dict(stated)
    for name in architecture["_kw_requires_import"]:
        if isinstance(arguments.get(name), str):
            arguments[name] = pydoc.locate(arguments[name])
    built: Any
    if network == CLASS_NAME:
        built = ECCaMUNet(
            input_channels=input_channels, num_classes=num_classes, deep_supervision=deep_supervision, **arguments
        )
        stated = {**_DEFAULTS, **stated}
    else:
        module, _, class_name = network.rpartition(".")
        plan = UNetPlan.of(**{name: value for name, value in arguments.items() if name in _OF_A_UNET})
        compared = getattr(importlib.import_module(module), class_name)
        built = compared.from_plan(plan, input_channels, num_classes, deep_supervision)
        shapes_it = () if issubclass(compared, BackboneNetwork) else _OF_A_UNET
        stated = {name: value for name, value in stated.items() if name in shapes_it}
    stated |= {"input_channels": input_channels, "num_classes": num_classes}
    built.origin = Origin.here(network, stated)
    built.apply(built.initialize)
    return cast(PadsToMultiple, built)
