"""What this package uses of nnU-Net and the libraries that nnU-Net's trainers are made of, read from its own code.

Three kinds of use are found by the syntax tree of every module:

- a name that is imported (``from nnunetv2.x import y``);
- what a class here overrides of its upstream base, or takes from it by ``self.name`` and ``super().name``;
- what is asked of an object by its usual name (``configuration_manager.patch_size``, ``predictor.network``).

``python tests/upstream_use.py > tests/upstream_use.txt`` writes the list that ``test_upstream.py`` holds upstream to.
"""

import ast
import importlib
import inspect
import textwrap
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

UPSTREAM = ("nnunetv2", "dynamic_network_architectures", "batchgenerators", "batchgeneratorsv2", "acvl_utils")

OBJECTS = {
    "configuration_manager": "nnunetv2.utilities.plans_handling.plans_handler.ConfigurationManager",
    "plans_manager": "nnunetv2.utilities.plans_handling.plans_handler.PlansManager",
    "label_manager": "nnunetv2.utilities.label_handling.label_handling.LabelManager",
    "predictor": "nnunetv2.inference.predict_from_raw_data.nnUNetPredictor",
    "nnunet_trainer": "nnunetv2.training.nnUNetTrainer.nnUNetTrainer.nnUNetTrainer",
}
"""Names of variables and attributes to the class of upstream that they hold."""

BY_NAME = {
    "nnunetv2.inference.predict_from_raw_data.nnUNetPredictor",
    "nnunetv2.training.nnUNetTrainer.nnUNetTrainer.nnUNetPredictor",
    "nnunetv2.utilities.find_objects.nnUNet_extTrainer",
}
"""What is replaced or waited for by a name in quotes, which no syntax tree tells."""

REPOSITORY = Path(__file__).resolve().parents[1]


def package_files() -> Iterator[tuple[str, Path]]:
    """Yield each module of the package: its dotted name and file."""
    for folder in ("nnunetv2_eccam", "dataset_conversion", "plans_overrides"):
        for path in sorted((REPOSITORY / folder).rglob("*.py")):
            parts = [*path.relative_to(REPOSITORY).with_suffix("").parts]
            prefix = [] if folder == "nnunetv2_eccam" else ["nnunetv2_eccam"]
            if parts[-1] == "__init__":
                parts.pop()
            if parts[-1] != "__main__":
                yield ".".join(prefix + parts), path


def used_names() -> set[str]:
    """Give everything of upstream that the package uses, as dotted names."""
    return BY_NAME | {name for module, path in package_files() for name in _used_in(module, path)}


def _used_in(module: str, path: Path) -> Iterator[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    imported = dict(_imports(tree))
    yield from (name for name in imported.values() if _is_upstream(name))
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            held = node.value.attr if isinstance(node.value, ast.Attribute) else getattr(node.value, "id", None)
            if held in OBJECTS:
                yield f"{OBJECTS[held]}.{node.attr}"
            elif held in imported and _is_upstream(imported[held]) and inspect.ismodule(find(imported[held])):
                yield f"{imported[held]}.{node.attr}"
        elif isinstance(node, ast.ClassDef):
            yield from _used_by_class(node, module, imported)


def _imports(tree: ast.AST) -> Iterator[tuple[str, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            yield from ((alias.asname or alias.name, f"{node.module}.{alias.name}") for alias in node.names)


def _used_by_class(node: ast.ClassDef, module: str, imported: dict[str, str]) -> Iterator[str]:
    """Yield what a class takes from its upstream base: names that are not defined in this package."""
    names = [ast.unparse(base).split("[")[0] for base in node.bases]
    bases = [find(imported.get(name, f"{module}.{name}")) for name in names]
    lineage = [cls for base in bases if inspect.isclass(base) for cls in base.__mro__]
    upstream = next((cls for cls in lineage if _is_upstream(cls.__module__)), None)
    if upstream is None:
        return
    above = [cls for cls in lineage if not _is_upstream(cls.__module__)]  # object too, which has __class__ and so on
    ours = {name for cls in above for name in attributes_of(cls)}
    there = {name for cls in upstream.__mro__ for name in attributes_of(cls) if _is_upstream(cls.__module__)}
    defined = {child.name for child in ast.walk(node) if isinstance(child, ast.FunctionDef)}
    defined |= {target.id for line in node.body for target in _targets(line) if isinstance(target, ast.Name)}
    own = [child for child in ast.walk(node) if isinstance(child, ast.Attribute)]
    own = [child for child in own if ast.unparse(child.value) in ("self", "cls", "super()")]
    defined |= {child.attr for child in own if isinstance(child.ctx, ast.Store)}
    asked = {child.attr for child in own} - {"__name__", "__class__", "__qualname__"}
    dotted = f"{upstream.__module__}.{upstream.__qualname__}"
    yield from (f"{dotted}.{name}" for name in (asked - ours - defined) | (defined & there) | (asked & there))


def _targets(line: ast.stmt) -> list[ast.expr]:
    if isinstance(line, ast.Assign):
        return line.targets
    return [line.target] if isinstance(line, ast.AnnAssign) else []


@cache
def attributes_of(cls: type) -> frozenset[str]:
    """Give what a class defines: its own dictionary, and what its methods assign to ``self``."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(cls)))
    except (OSError, TypeError):
        return frozenset(vars(cls))
    assigned = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and ast.unparse(node.value) == "self"
    }
    return frozenset(vars(cls)) | assigned


def _is_upstream(name: str) -> bool:
    return name.split(".")[0] in UPSTREAM


def find(name: str) -> Any:
    """Give what a dotted name stands for: a module, or something in one; None if there is no such thing."""
    module, _, rest = name, "", []
    while module:
        try:
            found: Any = importlib.import_module(module)
            break
        except ModuleNotFoundError:
            module, _, last = module.rpartition(".")
            rest.insert(0, last)
    else:
        return None
    for part in rest:
        if not hasattr(found, part):
            return None
        found = inspect.getattr_static(found, part) if inspect.isclass(found) else getattr(found, part)
    return found


def described(name: str) -> str:
    """Give a dotted name with what upstream has there: a signature, or that it is a class, an attribute or a property.

    Returns:
        ``name(self, x, y=1)``, ``name: attribute``, or ``name: gone``.
    """
    found = find(name)
    if isinstance(found, staticmethod | classmethod):
        found = found.__func__
    if inspect.isclass(found):
        return f"{name}: class {_signature(found.__init__)}"
    if callable(found):
        return name + _signature(found)
    if found is not None and not isinstance(found, property):
        return f"{name}: {'module' if inspect.ismodule(found) else 'attribute'}"
    owner, _, attribute = name.rpartition(".")
    cls = find(owner)
    there = inspect.isclass(cls) and any(attribute in attributes_of(parent) for parent in cls.__mro__)
    return f"{name}: {'attribute' if there or found is not None else 'gone'}"


def _signature(function: Any) -> str:
    parameters = inspect.signature(function).parameters.values()
    plain = [p.replace(annotation=inspect.Parameter.empty) for p in parameters]
    simple = str | int | float | bool | tuple | None | type(inspect.Parameter.empty)
    return str(inspect.Signature([p if isinstance(p.default, simple) else p.replace(default=...) for p in plain]))


if __name__ == "__main__":
    print("\n".join(sorted(map(described, used_names()))))
