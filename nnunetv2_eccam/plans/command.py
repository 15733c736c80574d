"""Add EC-CaM-UNet's configurations to a data set's plans, beside nnU-Net's own.

  nnUNetv2_eccam plans --list                 what there is
  nnUNetv2_eccam plans --show practical       one of them, as it is in the file
  nnUNetv2_eccam plans -d 2                   the configurations that data set 2 has
  nnUNetv2_eccam plans -d 2 practical trial   add these to data set 2
  nnUNetv2_eccam plans -d 2 my_override.json  add your own

A configuration inherits from one that nnU-Net planned and uses its preprocessed data: nothing has to be
preprocessed again. Running it again changes nothing.
"""

import argparse
from typing import Any

from nnunetv2_eccam.arguments import add_option
from nnunetv2_eccam.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add_option(parser, "-d", help="data set, by number or name; may also stand first, without -d")
    parser.add_argument("words", nargs="*", metavar="override", help="name of a shipped override, or a .json file")
    parser.add_argument("--list", action="store_true", help="list the shipped overrides")
    parser.add_argument("--show", metavar="NAME", help="print a shipped override")
    add_option(parser, "-p")
    parser.add_argument(
        "-gpu_memory_target",
        type=float,
        default=8.0,
        metavar="GB",
        help="GPU memory that an estimated batch size is made for, as nnU-Net's own flag (default: 8)",
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace a configuration that this command did not write"
    )


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    from nnunetv2_eccam.plans.overrides import load_override, shipped_overrides

    if arguments.list:
        for name in shipped_overrides():
            override = load_override(name)
            print(f"{name:20s} {', '.join(c.name for c in override.configurations)}\n{'':20s} {override.description}")
        return 0
    if arguments.show is not None:
        shipped = shipped_overrides()
        if arguments.show not in shipped:
            raise UserError(f"there is no override named {arguments.show}; there are {', '.join(shipped)}")
        print(shipped[arguments.show].read_text(encoding="utf-8").rstrip())
        return 0
    wanted, *overrides = [*([arguments.dataset] if arguments.dataset else []), *arguments.words] or [None]
    if wanted is None:
        raise UserError("give a data set and the overrides to add, as -d 2 practical, or --list")
    if arguments.gpu_memory_target <= 0:
        raise UserError(f"-gpu_memory_target must be more than 0 GB, got {arguments.gpu_memory_target}")

    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    from nnunetv2_eccam.plans.configuration import make_configuration
    from nnunetv2_eccam.plans.dataset_plans import find_dataset_plans

    dataset = find_dataset_plans(wanted, arguments.plans)
    if not overrides:
        print(f"{dataset.file}")
        plans = PlansManager(dataset.plans)
        for name in dataset.plans["configurations"]:
            print(f"  {_summary(name, plans.get_configuration(name).configuration)}")
        return 0
    configurations: dict[str, dict[str, Any]] = {}
    for name in overrides:
        for configuration in load_override(name).configurations:
            configurations[configuration.name] = make_configuration(
                configuration, dataset.plans, dataset.dataset_json, arguments.gpu_memory_target
            )
    outcome = dataset.add(configurations, arguments.overwrite)
    print(f"{dataset.file}")
    for name, entry in configurations.items():
        print(f"  {outcome[name]:9s} {_summary(name, entry)}")
    return 0


def _summary(name: str, entry: dict[str, Any]) -> str:
    architecture = entry.get("architecture")
    if architecture is None:
        return name
    arguments = architecture["arch_kwargs"]
    network = architecture["network_class_name"].rsplit(".", 1)[-1]
    return (
        f"{name:18s} {network}, {arguments['n_stages']} stages of {arguments['features_per_stage']}, "
        f"patch {list(entry['patch_size'])}, batch {entry['batch_size']}"
    )
