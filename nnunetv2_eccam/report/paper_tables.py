"""The paper's Tables I to V and Fig. 5, with what it prints and what was measured in columns of their own."""

import math
from typing import Any

from pandas import DataFrame

from nnunetv2_eccam.benchmark.spec import Entry
from nnunetv2_eccam.report.measured import OVERLAP, SUBSETS, Measured
from nnunetv2_eccam.report.table import Table, slug
from nnunetv2_eccam.systems import SYSTEMS
from nnunetv2_eccam.systems.published import PUBLISHED

NOT_THE_SAME = (
    "Published: as the paper prints it, on slices of its own split; it gives neither case names nor how slices were "
    "pooled. Measured: on the cases of this benchmark. The two are not the same measurement, and their difference is "
    "no effect of anything."
)
"""What stands below each of these tables."""

SEVERAL_LABELS = "The paper takes an organ and its lesion for one label; its numbers stand beside the first label here."
"""What stands below too where a data set has several labels."""

OUTSIDE = "(not in the paper)"
"""What stands instead of a row's name for systems that the paper does not have."""


def paper_tables(measured: Measured, paper_table: str) -> list[Table]:
    """Make one of the paper's tables for each data set that it has, if any of its systems was measured.

    Args:
        measured: the scores.
        paper_table: ``I`` to ``V``, or ``Fig. 5``.
    """
    names = measured.spec.paper_names
    tables = [_paper_table(measured, paper_table, *block, names[block[0]]) for block in measured.blocks
              if block[0] in names]  # fmt: skip
    return [table for table in tables if table is not None]


def _paper_table(measured: Measured, paper_table: str, dataset: str, subset: str, published: str) -> Table | None:
    labels = measured.labels(dataset, subset)
    present = {title for where in labels for title in measured.systems(where)}
    systems = [each for each in measured.spec.trainers if each.title in present]
    metrics = [each for each in OVERLAP if paper_table in ("I", "II", "V") or each.published == "DSC"]
    rows: list[dict[str, Any]] = []
    known: list[tuple[str, Entry | None]] = []
    for row in paper_rows(paper_table):
        here = [each for each in systems if each.paper and (paper_table, row) in each.paper.rows]
        known += [(row, each) for each in here] or [(row, None)]
    if not any(system for _, system in known):
        return None
    if paper_table == "I":
        known += [(OUTSIDE, each) for each in systems if each.paper is None]
    for row, system in known:
        for number, where in enumerate(labels if system is not None else labels[:1]):
            # The paper has one label: what it prints of it is not repeated for a lesion within the organ.
            scores = PUBLISHED[paper_table].get(row, {}).get(published, {}) if number == 0 else {}
            cells: dict[str, Any] = {"The paper's row": row, "System here": system.title if system else "",
                     "Label": where.label if system else ""}  # fmt: skip
            for metric in metrics:
                cells[f"{metric.title} published"] = scores.get(metric.published or "", math.nan)
                for level in [each for each in ("slice", "volume", "patient") if each in measured.levels]:
                    found = None
                    if system and len(measured.rows(level, where, system.title)):
                        found = measured.summary(level, where, system.title, metric)
                    cells |= {f"{metric.title} per {level} {each}": getattr(found, each, math.nan)
                              for each in ("mean", "low", "high")}  # fmt: skip
            rows.append(cells)
    frame = DataFrame(rows)
    layout = {f"{name.removesuffix(' mean')} [%]": f"{{{name}}}\n[{{{name[:-4]}low}}, {{{name[:-4]}high}}]"
              for name in frame.columns if name.endswith(" mean")}  # fmt: skip
    layout |= {f"{name} [%]": f"{{{name}}}" for name in frame.columns if name.endswith(" published")}
    title = f"{_word(paper_table)}, {published}: published, and measured on {dataset}, {SUBSETS[subset]}"
    notes = (NOT_THE_SAME, *((SEVERAL_LABELS,) if len(labels) > 1 else ()))
    return Table(slug("paper", _word(paper_table), dataset, SUBSETS[subset]), title, frame, layout, notes)


def _word(paper_table: str) -> str:
    return paper_table if paper_table.startswith("Fig") else f"Table {paper_table}"


def paper_rows(paper_table: str) -> list[str]:
    """Name the rows of one of the paper's tables, in its order; of Fig. 5 its points by alpha."""
    listed = [row.label for system in SYSTEMS for row in system.rows if row.table == paper_table]
    printed = [] if paper_table.startswith("Fig") else list(PUBLISHED[paper_table])
    return list(dict.fromkeys([*printed, *listed]))
