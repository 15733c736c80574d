"""nnU-Net's plans to the arguments of :class:`ECCaMUNet`, for a configuration made for any U-Net."""

import inspect
import pydoc
from collections.abc import Mapping, Sequence
from typing import Any, cast

from nnunetv2_eccam.architectures.compared.network import BackboneNetwork
from nnunetv2_eccam.architectures.eccam_unet import ECCaMUNet, stages_with_attention
from nnunetv2_eccam.architectures.origin import Origin, plain
from nnunetv2_eccam.architectures.padding import PadsToMultiple
from nnunetv2_eccam.architectures.unet_plan import CONVS_IN_PLACE_OF_BLOCKS, UNetPlan, divisors, per_stage_and_axis
from nnunetv2_eccam.blocks.convolution import LayerOps
from nnunetv2_eccam.blocks.multi_scale import dilations_for, scaled_dilations
from nnunetv2_eccam.errors import UserError

PAPER_STAGES = 5
"""The paper's depth (III)."""

CLASS_NAME = f"{ECCaMUNet.__module__}.{ECCaMUNet.__qualname__}"

_GIVEN_BY_NNUNET = {"input_channels", "num_classes", "deep_supervision"}


def _arguments_of(cls: type) -> dict[str, Any]:
    """Give what a plan may tell a network, with the defaults."""
    parameters = inspect.signature(cls).parameters
    named = {name: found.default for name, found in parameters.items() if found.kind is not found.VAR_KEYWORD}
    return {name: default for name, default in named.items() if name not in _GIVEN_BY_NNUNET}


_OF_A_UNET = {**_arguments_of(LayerOps), **_arguments_of(UNetPlan)}
_ARGUMENTS = {**_OF_A_UNET, **_arguments_of(ECCaMUNet)}
_DEFAULTS = {name: default for name, default in _ARGUMENTS.items() if default is not inspect.Parameter.empty}

SWITCHES = frozenset(_ARGUMENTS)
"""The arguments that a plans file or a trainer may set."""

OF_BLOCKS = frozenset(
    {"n_blocks_per_stage", "block", "bottleneck_channels", "stem_channels", "stochastic_depth_p"}
    | {"squeeze_excitation", "squeeze_excitation_reduction_ratio"}
)
"""Of these, what only a residual encoder has."""

KNOWN = ("PlainConvUNet", "ResidualEncoderUNet")
"""nnU-Net's networks whose plans can be followed."""

PER_STAGE = ("features_per_stage", "kernel_sizes", "strides", "n_conv_per_stage", "n_blocks_per_stage")


def network_arguments(
    architecture: Mapping[str, Any],
    patch_size: Sequence[int],
    switches: Mapping[str, Any] | None = None,
    max_stages: int | None = None,
) -> dict[str, Any]:
    """Turn a configuration's architecture into :class:`ECCaMUNet`'s arguments.

    A configuration written for ``ECCaMUNet`` is taken as it is. One of nnU-Net's own (``PlainConvUNet`` or
    ``ResidualEncoderUNet``, wherever the class lay when the plans were written) is cut to ``max_stages``, and the
    rates of MuS are scaled to its places.

    Args:
        architecture: the configuration's ``architecture`` entry: ``network_class_name``, ``arch_kwargs``,
            ``_kw_requires_import``.
        patch_size: the configuration's patch, voxels per axis.
        switches: arguments that go before the configuration's, from the trainer.
        max_stages: stages of nnU-Net's own configurations to keep at most; None: all of them.

    Returns:
        arguments as a plans file states them: classes are dotted names.

    Raises:
        UserError: a network or an argument that this package does not know.
    """
    is_ours = architecture["network_class_name"] == CLASS_NAME
    arguments = {**cut_to_depth(architecture, None if is_ours else max_stages), **(switches or {})}
    if unknown := sorted(set(arguments) - SWITCHES):
        raise UserError(
            f"the plans or the trainer give the network {', '.join(unknown)}, which this package does not know; "
            f"it knows {', '.join(sorted(SWITCHES))}"
        )
    arguments["dilations"] = _dilations(arguments, patch_size)
    return arguments


def cut_to_depth(architecture: Mapping[str, Any], max_stages: int | None = None) -> dict[str, Any]:
    """Keep the first stages of a network.

    Args:
        architecture: the ``architecture`` entry.
        max_stages: stages to keep at most; None: all.

    Returns:
        its arguments, as :class:`ECCaMUNet` takes them.

    Raises:
        UserError: it is neither this package's network nor one of :data:`KNOWN`.
    """
    path, arguments = str(architecture["network_class_name"]), dict(architecture["arch_kwargs"])
    if path != CLASS_NAME and path.rpartition(".")[2] not in KNOWN:
        raise UserError(
            f"the plans' network is {path}, which this package cannot follow; it knows {', '.join(KNOWN)} and its own "
            f"{CLASS_NAME}. Plan with nnUNetPlannerResEncM or nnU-Net's default planner"
        )
    if arguments.get("n_blocks_per_stage") is not None:
        arguments["n_conv_per_stage"] = None
    n_stages = int(arguments["n_stages"])
    if max_stages is None or n_stages <= max_stages:
        return arguments
    arguments["n_stages"] = max_stages
    for name in (*PER_STAGE, "bottleneck_channels"):
        if isinstance(arguments.get(name), (list, tuple)):
            arguments[name] = list(arguments[name])[:max_stages]
    decoder = arguments["n_conv_per_stage_decoder"]
    if not isinstance(decoder, int):  # its entries begin at the lowest resolution, so its first ones go
        arguments["n_conv_per_stage_decoder"] = list(decoder)[1 - max_stages :]
    return arguments


def not_followed(architecture: Mapping[str, Any], network: str, max_stages: int | None = None) -> str | None:
    """Say in one line what of a plan's network a system does not follow, or give None where it follows all.

    Args:
        architecture: the configuration's ``architecture`` entry.
        network: dotted path of the system's network.
        max_stages: see :func:`network_arguments`.
    """
    arguments = architecture["arch_kwargs"]
    blocks = arguments.get("n_blocks_per_stage")
    said: list[str] = []
    if network != CLASS_NAME:
        if issubclass(_located("network", network), BackboneNetwork):
            return "it has a backbone of its own, and takes nothing of the plan's network but the number of axes"
        if blocks is not None:
            said.append(
                f"the plan's residual blocks ({blocks} a stage): it has {CONVS_IN_PLACE_OF_BLOCKS} convolutions a stage"
            )
    is_ours = architecture["network_class_name"] == CLASS_NAME
    if not is_ours and max_stages is not None and arguments["n_stages"] > max_stages:
        said.append(f"the plan's {arguments['n_stages']} stages: it has {max_stages}, as the paper has")
    return f"it does not follow {'; nor '.join(said)}" if said else None


def _dilations(arguments: Mapping[str, Any], patch_size: Sequence[int]) -> Any:
    """Give the rates of MuS, by stage where the module is elsewhere than at the deepest alone.

    Rates that are stated are the deepest stage's, or given by stage. A place without rates of its own has the deepest
    stage's, scaled to its map; where none are stated for that one, or those that it would have anyway, the paper's.
    """
    strides = per_stage_and_axis("strides", arguments["strides"], int(arguments["n_stages"]), len(patch_size))
    deepest = len(strides) - 1
    sizes = [bottleneck_size(patch_size, strides[: stage + 1]) for stage in range(len(strides))]
    stated = arguments.get("dilations")
    rates = dict(stated) if isinstance(stated, Mapping) else {} if stated is None else {str(deepest): stated}
    reference, of_paper = rates.get(str(deepest)), [plain(dilations_for(size)) for size in sizes]

    def rates_at(place: int) -> Any:
        if str(place) in rates:
            return rates[str(place)]
        if reference is None or plain(reference) == of_paper[deepest]:
            return of_paper[place]
        return plain(scaled_dilations(reference, sizes[deepest], sizes[place]))

    places = stages_with_attention(arguments.get("attention_stages", "deepest"), strides)
    return rates_at(deepest) if places == [deepest] else {str(place): rates_at(place) for place in places}


def bottleneck_size(patch_size: Sequence[int], strides: Sequence[Sequence[int]]) -> list[int]:
    """Give the size of the last stage's map for a patch."""
    return [n // d for n, d in zip(patch_size, divisors(strides), strict=True)]


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
        deep_supervision: whether all side outputs are given, of a network that has them. The heads exist either way,
            so that weights trained with it load into a network built without it, as nnU-Net does for prediction.
        switches: see :func:`network_arguments`.
        network: dotted path of the network's class, ``ECCaMUNet`` or a compared network, which is built from what
            the arguments say of a U-Net's stages.
        max_stages: see :func:`network_arguments`.

    Raises:
        UserError: an argument that the network does not have, or a library that it needs is missing.
    """
    stated = network_arguments(architecture, patch_size, switches, max_stages)
    if network != CLASS_NAME:
        if stated.get("n_blocks_per_stage") is not None:
            stated["n_conv_per_stage"] = stated["n_conv_per_stage_decoder"] = CONVS_IN_PLACE_OF_BLOCKS
        stated = {name: value for name, value in stated.items() if name in _OF_A_UNET and name not in OF_BLOCKS}
    classes = {"block", *architecture["_kw_requires_import"]}
    arguments = {name: _located(name, value) if name in classes else value for name, value in stated.items()}
    built: Any
    try:
        if network == CLASS_NAME:
            built = ECCaMUNet(input_channels, num_classes, deep_supervision, **arguments)
            stated = {**_DEFAULTS, **stated}
        else:
            compared: Any = _located("network", network)
            if issubclass(compared, BackboneNetwork):
                built, stated = compared(input_channels, num_classes), {}  # of the plan's network it takes nothing
            else:
                built = compared(UNetPlan(**arguments), input_channels, num_classes)
            if deep_supervision:  # of a network that has side outputs
                built.decoder.deep_supervision = True
    except ValueError as error:
        raise UserError(f"the network of these plans cannot be built: {error}") from error
    stated |= {"input_channels": input_channels, "num_classes": num_classes}
    built.origin = Origin.here(network, stated)
    built.apply(built.initialize)
    return cast(PadsToMultiple, built)


def _located(name: str, value: Any) -> Any:
    """Give the class that a plan names.

    Raises:
        UserError: there is none of that name.
    """
    if not isinstance(value, str):
        return value
    found = pydoc.locate(value)
    if found is None:
        raise UserError(f"the plans' {name} is {value}, which cannot be imported")
    return found
