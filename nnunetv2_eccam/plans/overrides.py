"""Plans overrides: the JSON files of ``plans_overrides/``, or a user's own, read and checked."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from nnunetv2_eccam.errors import UserError
from nnunetv2_eccam.files import read_json

Network = Literal["ECCaMUNet", "PlainConvUNet"]
NETWORKS: tuple[Network, ...] = ("ECCaMUNet", "PlainConvUNet")


@dataclass(frozen=True)
class ConfigurationOverride:
    """What one configuration says beyond the one that it inherits from.

    Args:
        name: of the configuration, as ``nnUNetv2_train`` takes it.
        inherits_from: the configuration of the data set's plans that it is based on, and whose
            preprocessed data it uses.
        network: ``ECCaMUNet``, or ``PlainConvUNet`` for a comparison at the same size: on residual plans it is
            ``ResidualEncoderUNet``.
        arch_kwargs: arguments of the network that differ from the parent's.
        patch_size: voxels per axis; the parent's by default.
        max_patch_size: cap of the parent's patch along each axis.
        batch_size: a number, or ``estimate``: what fits the GPU memory, as nnU-Net estimates it.
        recipe: settings of the training recipe that differ from data set to data set.
    """

    name: str
    inherits_from: str
    network: Network = "ECCaMUNet"
    arch_kwargs: Mapping[str, Any] = field(default_factory=dict)
    patch_size: tuple[int, ...] | None = None
    max_patch_size: int | None = None
    batch_size: int | Literal["estimate"] = "estimate"
    recipe: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Override:
    """One file: a purpose and the configurations that serve it."""

    description: str
    configurations: tuple[ConfigurationOverride, ...]


RECIPE_KEYS = frozenset({"weight_decay"})
_CONFIGURATION_KEYS = frozenset(ConfigurationOverride.__dataclass_fields__) - {"name"}
_FILE_KEYS = frozenset({"description", "configurations"})


def shipped_overrides() -> dict[str, Path]:
    """Give the shipped overrides' files by name, in alphabetical order."""
    folder = resources.files("nnunetv2_eccam.plans_overrides")
    files = [Path(str(entry)) for entry in folder.iterdir() if entry.name.endswith(".json")]
    return {path.stem: path for path in sorted(files)}


def load_override(name_or_file: str) -> Override:
    """Read an override by its shipped name or from a user's file.

    Raises:
        UserError: there is none, or it is not one; the message names the file and the key.
    """
    shipped = shipped_overrides()
    if name_or_file in shipped:
        source = shipped[name_or_file]
    elif name_or_file.endswith(".json"):
        source = Path(name_or_file)
    else:
        raise UserError(
            f"there is no override named {name_or_file}; there are {', '.join(shipped)}, "
            "or give the path of your own .json file"
        )
    content = read_json(source)
    _check_keys(source, "the file", content, _FILE_KEYS)
    configurations = content.get("configurations")
    if not isinstance(configurations, dict) or not configurations:
        raise UserError(f"{source}: 'configurations' must name at least one configuration")
    return Override(
        description=str(content.get("description", "")),
        configurations=tuple(_configuration(source, name, entry) for name, entry in configurations.items()),
    )


def _configuration(source: Path, name: str, entry: Any) -> ConfigurationOverride:
    where = f"configuration {name}"
    _check_keys(source, where, entry, _CONFIGURATION_KEYS)
    if "inherits_from" not in entry:
        raise UserError(f"{source}: {where} must say which configuration it inherits from, such as '2d'")
    if entry.get("network", "ECCaMUNet") not in NETWORKS:
        raise UserError(f"{source}: {where}: network must be one of {', '.join(NETWORKS)}, got {entry['network']!r}")
    batch_size = entry.get("batch_size", "estimate")
    if batch_size != "estimate" and not _is_count(batch_size):
        raise UserError(
            f"{source}: {where}: batch_size must be a number of at least 1 or 'estimate', got {batch_size!r}"
        )
    patch_size = entry.get("patch_size")
    if patch_size is not None and not (isinstance(patch_size, list) and patch_size and all(map(_is_count, patch_size))):
        raise UserError(f"{source}: {where}: patch_size must be a list of voxels per axis, got {patch_size!r}")
    if entry.get("max_patch_size") is not None and not _is_count(entry["max_patch_size"]):
        raise UserError(
            f"{source}: {where}: max_patch_size must be a number of voxels, got {entry['max_patch_size']!r}"
        )
    for key in ("arch_kwargs", "recipe"):
        if not isinstance(entry.get(key, {}), dict):
            raise UserError(f"{source}: {where}: {key} must be an object, got {entry[key]!r}")
    _check_keys(source, f"{where}: recipe", entry.get("recipe", {}), RECIPE_KEYS)
    return ConfigurationOverride(
        name=name, **{**entry, "patch_size": None if patch_size is None else tuple(patch_size)}
    )


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _check_keys(source: Path, where: str, entry: Any, known: frozenset[str]) -> None:
    if not isinstance(entry, dict):
        raise UserError(f"{source}: {where} must be an object, got {type(entry).__name__}")
    if unknown := sorted(set(entry) - known):
        raise UserError(f"{source}: {where} has an unknown key {unknown[0]!r}; known are {', '.join(sorted(known))}")
