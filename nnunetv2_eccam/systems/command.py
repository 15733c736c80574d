"""List the trainers: every system that the paper compares, under nnU-Net's recipe and under the paper's.

  nnUNetv2_eccam trainers                    each name, its row in the paper, what it is
  nnUNetv2_eccam trainers --table II         one table of the paper: I to V, "Fig. 5", or related
  nnUNetv2_eccam trainers --published        with the numbers that the paper prints
  nnUNetv2_eccam trainers --names            the names alone, one a line

Any length: append _Nepochs to a name, as nnUNetTrainerECCaM_UNet_50epochs.
"""

import argparse
from collections.abc import Iterator, Sequence

from nnunetv2_eccam.systems.published import DATASETS, METRICS
from nnunetv2_eccam.systems.table import RECIPES, SYSTEMS, PaperRow, System

TABLES = ("I", "II", "III", "IV", "V", "Fig. 5", "related")

RECIPE_TITLES = {
    "nnunet": "nnU-Net's recipe: 1000 epochs, SGD, Dice + cross-entropy, nnU-Net's augmentation",
    "paper": "the paper's recipe: 150 epochs, Adam, batch norm, Dice (cross-entropy on side outputs), 2D",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("--table", choices=TABLES, help="only the systems of this table of the paper")
    parser.add_argument("--recipe", choices=RECIPES, help="only the trainers of this recipe (default: both)")
    shown = parser.add_mutually_exclusive_group()
    shown.add_argument("--published", action="store_true", help="the numbers that the paper prints, in percent")
    shown.add_argument("--names", action="store_true", help="the names alone")
    shown.add_argument("--markdown", action="store_true", help="as the table of docs/reference/systems.md")


def run(arguments: argparse.Namespace) -> int:
    """Print the list."""
    systems = [system for system in SYSTEMS if _in_table(system, arguments.table)]
    recipes = [arguments.recipe] if arguments.recipe else list(RECIPES)
    if arguments.published:
        lines = _published_lines(systems, arguments.table)
    elif arguments.markdown:
        lines = markdown_lines(systems)
    elif arguments.names:
        lines = (system.trainer_name(recipe) for recipe in recipes for system in systems)
    else:
        lines = _listing(systems, recipes)
    for line in lines:
        print(line)
    return 0


def markdown_lines(systems: Sequence[System]) -> Iterator[str]:
    """Lay the systems out as the table of ``docs/reference/systems.md``."""
    yield "| paper | `-tr`, nnU-Net's recipe | `-tr`, the paper's recipe | what |"
    yield "| --- | --- | --- | --- |"
    for system in systems:
        names = (f"`{system.trainer_name(recipe)}`" for recipe in RECIPES)
        yield f"| {system.where.replace('; ', '<br>')} | {' | '.join(names)} | {system.differs} |"


def _in_table(system: System, table: str | None) -> bool:
    if table is None:
        return True
    return not system.rows if table == "related" else any(row.table == table for row in system.rows)


def _listing(systems: Sequence[System], recipes: Sequence[str]) -> Iterator[str]:
    for recipe in recipes:
        yield f"\n{RECIPE_TITLES[recipe]}\n"
        names = [system.trainer_name(recipe) for system in systems]
        width = max(map(len, names))
        for system, trainer in zip(systems, names, strict=True):
            yield f"  {trainer:{width}s}  {system.differs}"
            yield f"  {'':{width}s}  {system.where}" + (", 2D only" if system.dimensions == (2,) else "")


def _published_lines(systems: Sequence[System], table: str | None) -> Iterator[str]:
    """Give one line per system and row: the paper's numbers, metrics separated by slashes."""
    columns = "".join(f"  {dataset:>21s}" for dataset in DATASETS)
    yield f"  {'-tr':36s}  {'row':34s}{columns}    ({' / '.join(METRICS)}, in percent)"
    for system in systems:
        for row in system.rows:
            if table in (None, row.table):
                yield f"  {system.trainer_name():36s}  {row!s:34s}{''.join(_cells(row))}".rstrip()


def _cells(row: PaperRow) -> Iterator[str]:
    for dataset in DATASETS:
        scores = row.published.get(dataset, {})
        cell = " / ".join(f"{scores[metric]:.2f}" for metric in METRICS if metric in scores)
        yield f"  {cell:>21s}"
