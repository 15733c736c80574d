"""An override and its parent configuration to a configuration of nnU-Net's plans, checked."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunetv2_eccam.architectures.from_plans import (
    CLASS_NAME,
    OF_BLOCKS,
    PER_STAGE,
    bottleneck_size,
    cut_to_depth,
    network_arguments,
)
from nnunetv2_eccam.architectures.unet_plan import divisors, per_stage_and_axis
from nnunetv2_eccam.errors import UserError
from nnunetv2_eccam.plans.batch_size import dataset_voxels, estimate_batch_size
from nnunetv2_eccam.plans.overrides import ConfigurationOverride

SMALLEST_BOTTLENECK = 4
"""Positions along each axis below which nnU-Net adds no further stage (``UNet_featuremap_min_edge_length``)."""

PLAIN_CLASS_NAME = "dynamic_network_architectures.architectures.unet.PlainConvUNet"
RESIDUAL_CLASS_NAME = "dynamic_network_architectures.architectures.unet.ResidualEncoderUNet"

MARK = "added_by"
"""The key by which a configuration of ours is recognised in a plans file."""


def make_configuration(
    override: ConfigurationOverride,
    plans: Mapping[str, Any],
    dataset_json: Mapping[str, Any],
    gpu_memory_gb: float,
) -> dict[str, Any]:
    """Make the entry for the plans' ``configurations``.

    Args:
        override: what to add.
        plans: the data set's plans.
        dataset_json: the data set's ``dataset.json``.
        gpu_memory_gb: the GPU memory to plan for, in GB, where the override leaves the batch to it.

    Returns:
        the entry: ``inherits_from``, patch, batch, architecture and recipe; all else is inherited, the
        preprocessed data too.

    Raises:
        UserError: what the override asks for does not make sense for this data set, with what is wrong.
    """
    try:
        if override.inherits_from not in plans["configurations"]:
            raise UserError(
                f"it inherits from {override.inherits_from}, which the plans do not have; they have "
                f"{', '.join(plans['configurations'])}. "
                f"Plan it first: nnUNetv2_plan_and_preprocess ... -c {override.inherits_from}"
            )
        parent = PlansManager(dict(plans)).get_configuration(override.inherits_from).configuration
        architecture = _architecture(override, parent)
        patch_size = _patch_size(override, parent, architecture["arch_kwargs"]["strides"])
        if override.network == "ECCaMUNet":
            architecture["arch_kwargs"] = network_arguments(architecture, patch_size)
        _check(architecture["arch_kwargs"], patch_size)
        values = _feature_map_size(architecture, patch_size, dataset_json)
    except (ValueError, TypeError, AssertionError) as error:  # dynamic-network-architectures asserts
        raise UserError(f"{override.name} cannot be made: {error}") from error
    batch_size = override.batch_size
    if batch_size == "estimate":
        voxels = dataset_voxels(plans, parent, int(dataset_json["numTraining"]))
        batch_size = estimate_batch_size(values, patch_size, voxels, gpu_memory_gb)
    configuration = {
        "inherits_from": override.inherits_from,
        MARK: "nnUNetv2_eccam plans",
        "patch_size": list(patch_size),
        "batch_size": batch_size,
        "architecture": architecture,
    }
    if override.recipe:
        configuration["recipe"] = dict(override.recipe)
    return configuration


def _architecture(override: ConfigurationOverride, parent: Mapping[str, Any]) -> dict[str, Any]:
    """Put the override's arguments over the parent's, cut to the stages that it wants at most."""
    given = dict(override.arch_kwargs)
    kwargs = dict(parent["architecture"]["arch_kwargs"])
    n_stages = given.pop("n_stages", None)
    if override.patch_size is not None:  # the parent's strides belong to the parent's patch
        if not isinstance(given.get("features_per_stage"), list):
            raise UserError("an override with a patch_size must give features_per_stage, a list")
        n_stages = n_stages or len(given["features_per_stage"])
        dimension = len(override.patch_size)
        for name in OF_BLOCKS:  # such an override, as the paper's, says all of its network
            kwargs.pop(name, None)
        kwargs.update(
            n_stages=n_stages,
            strides=[[1] * dimension] + [[2] * dimension] * (n_stages - 1),
            kernel_sizes=[[3] * dimension] * n_stages,
            n_conv_per_stage=[2] * n_stages,
            n_conv_per_stage_decoder=[2] * (n_stages - 1),
        )
    arguments = cut_to_depth({**parent["architecture"], "arch_kwargs": kwargs}, n_stages)
    stages = arguments["n_stages"]
    for name, value in given.items():
        per_stage = name in PER_STAGE
        arguments[name] = value[:stages] if per_stage and isinstance(value, list) else value
    class_name = CLASS_NAME
    if override.network == "PlainConvUNet":  # nnU-Net's own network of this kind of plan
        residual = arguments.get("n_blocks_per_stage") is not None
        class_name = RESIDUAL_CLASS_NAME if residual else PLAIN_CLASS_NAME
        if residual:
            del arguments["n_conv_per_stage"]
    return {
        "network_class_name": class_name,
        "arch_kwargs": arguments,
        "_kw_requires_import": list(parent["architecture"]["_kw_requires_import"]),
    }


def _patch_size(
    override: ConfigurationOverride, parent: Mapping[str, Any], strides: Sequence[Sequence[int]]
) -> list[int]:
    if override.patch_size is not None:
        return list(override.patch_size)
    patch_size = list(parent["patch_size"])
    if override.max_patch_size is None:
        return patch_size
    return [
        n if n <= override.max_patch_size else max(d, override.max_patch_size // d * d)
        for n, d in zip(patch_size, divisors(strides), strict=True)
    ]


def _check(arguments: Mapping[str, Any], patch_size: Sequence[int]) -> None:
    """Refuse a patch, depth or dilation that does not make sense together."""
    strides = per_stage_and_axis("strides", arguments["strides"], arguments["n_stages"], len(patch_size))
    least = divisors(strides)
    if any(n % d for n, d in zip(patch_size, least, strict=True)):
        nearest = [max(d, round(n / d) * d) for n, d in zip(patch_size, least, strict=True)]
        raise UserError(
            f"patch_size {list(patch_size)} is not divisible by {least}, the product of the "
            f"strides over {len(strides)} stages; the nearest that is: {nearest}"
        )
    bottleneck = bottleneck_size(patch_size, strides)
    if min(bottleneck) < SMALLEST_BOTTLENECK:
        raise UserError(
            f"{len(strides)} stages leave a bottleneck of {bottleneck} of a patch of "
            f"{list(patch_size)}, below nnU-Net's least of {SMALLEST_BOTTLENECK} along each axis; use fewer stages "
            "or a larger patch"
        )
    rates = arguments.get("dilations", [])
    if isinstance(rates, Mapping):  # by stage
        rates = rates.get(str(len(strides) - 1), [])
    for rate in rates if arguments.get("multi_scale", True) else ():
        per_axis = [rate] * len(bottleneck) if isinstance(rate, int) else rate
        # A rate of another number of axes is the network's to refuse.
        if all(step >= size for step, size in zip(per_axis, bottleneck, strict=False)):
            raise UserError(
                f"dilations {list(rates)} reach outside the bottleneck of {bottleneck} from "
                "everywhere; give rates below its size, or none to have the paper's scaled to it"
            )


def _feature_map_size(
    architecture: Mapping[str, Any], patch_size: Sequence[int], dataset_json: Mapping[str, Any]
) -> int:
    """Build the network without memory for its weights and count what its convolutions write."""
    channels = dataset_json.get("channel_names", dataset_json.get("modality", {}))
    with torch.device("meta"):
        network = get_network_from_plans(
            architecture["network_class_name"],
            architecture["arch_kwargs"],
            architecture["_kw_requires_import"],
            len(channels),
            len(dataset_json["labels"]),
            allow_init=False,
            deep_supervision=True,
        )
    return int(network.compute_conv_feature_map_size(list(patch_size)))
