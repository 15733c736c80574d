"""What the report says, section by section; how it looks is the page's business."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

from nnunetv2_eccam.report.accuracy_figures import alpha_figures, cost_figures
from nnunetv2_eccam.report.case_list import case_table, undefined_table
from nnunetv2_eccam.report.case_values import Measured
from nnunetv2_eccam.report.collect import SUBSETS, Collected
from nnunetv2_eccam.report.comparison_tables import against_table, pairwise_tables, ranks_table
from nnunetv2_eccam.report.completeness import missing_table
from nnunetv2_eccam.report.cost import cost_table
from nnunetv2_eccam.report.curves import curve_figures
from nnunetv2_eccam.report.distributions import distribution_figures
from nnunetv2_eccam.report.methods import method_paragraphs
from nnunetv2_eccam.report.overall import overall_tables, overview_table, spread_table
from nnunetv2_eccam.report.paper_tables import paper_tables
from nnunetv2_eccam.report.provenance import commands_of, runs_table, versions_table
from nnunetv2_eccam.report.svg import Figure
from nnunetv2_eccam.report.table import Table, slug, with_names_apart
from nnunetv2_eccam.report.worst_cases import WorstCase, worst_cases
from nnunetv2_eccam.systems.published import PUBLISHED

PORTRAIT_LETTERS = 150
"""How many letters of a table stand on the short side of a printed page; on the long side half as many more."""


@dataclass(frozen=True)
class Section:
    """A section of the page.

    Attributes:
        name: its id.
        heading: as it is shown, and listed in the contents.
        paragraphs: text before the rest, each with a heading or an empty one.
        tables: after it.
        figures: after those.
        parts: sections within it.
        worst: pictures of cases.
        commands: that were run.
        is_filtered: whether its table can be filtered.
    """

    name: str
    heading: str
    paragraphs: tuple[tuple[str, str], ...] = ()
    tables: tuple[Table, ...] = ()
    figures: tuple[Figure, ...] = ()
    parts: tuple[Section, ...] = ()
    worst: tuple[WorstCase, ...] = ()
    commands: tuple[str, ...] = ()
    is_filtered: bool = False

    @property
    def is_wide(self) -> bool:
        """Whether it needs the long side of a printed page."""
        return any(table.letters > PORTRAIT_LETTERS for table in self.tables) or any(
            part.is_wide for part in self.parts
        )

    @property
    def has_content(self) -> bool:
        """Whether there is anything but its heading."""
        return any((self.paragraphs, self.tables, self.figures, self.parts, self.worst, self.commands))


@dataclass(frozen=True)
class Content:
    """The report.

    Attributes:
        title: of the page.
        facts: what was compared, as names and values.
        missing: what is not there yet, or None for a complete benchmark.
        sections: in order.
    """

    title: str
    facts: tuple[tuple[str, str], ...]
    missing: Table | None
    sections: tuple[Section, ...] = field(default=())

    @property
    def tables(self) -> list[Table]:
        """All tables of the page, in order."""
        return [*([] if self.missing is None else [self.missing]), *_tables_of(self.sections)]

    @property
    def figures(self) -> list[Figure]:
        """All figures of the page, in order."""
        return list(_figures_of(self.sections))


def build_content(collected: Collected) -> Content:
    """Put the report together.

    Raises:
        UserError: something that was measured cannot be read.
    """
    measured = Measured.of(collected)
    worst = worst_cases(measured)
    linked = {each.key: each.name for each in worst if each.pictures}
    sections = [
        Section("overview", "Overview", tables=_there(overview_table(measured), ranks_table(measured))),
        Section("methods", "Methods", tuple(method_paragraphs(measured.benchmark))),
        *_dataset_sections(collected, measured),
        Section("paper", "Beside the paper", parts=tuple(_paper_sections(measured))),
        Section("cost", "Cost", tables=_there(cost_table(collected)), figures=tuple(cost_figures(collected, measured))),
        Section("training", "Training", figures=tuple(curve_figures(collected))),
        Section("undefined-values", "Empty masks", tables=_there(undefined_table(collected))),
        Section("worst", "Worst cases", (("", _worst_said(measured)),) if worst else (), worst=tuple(worst)),
        Section("all-cases", "All cases", tables=_cases(measured, linked), is_filtered=True),
        Section("provenance", "Provenance", tables=_there(versions_table(collected), runs_table(collected)),
                commands=tuple(commands_of(collected))),
    ]  # fmt: skip
    content = Content(
        collected.benchmark.name, tuple(_facts(collected, measured)), missing_table(collected, measured),
        tuple(section for section in sections if section.has_content),
    )  # fmt: skip
    return _with_names_apart(content)


def _there(*tables: Table | None) -> tuple[Table, ...]:
    return tuple(table for table in tables if table is not None)


def _cases(measured: Measured, linked: dict[tuple[str, str, str, str], str]) -> tuple[Table, ...]:
    return (case_table(measured, linked),) if len(measured.cases) else ()


def _dataset_sections(collected: Collected, measured: Measured) -> Iterator[Section]:
    for number, dataset in enumerate(collected.benchmark.datasets):
        parts = []
        for subset in [subset for name, subset in measured.blocks if name == dataset]:
            pairs = [
                table for label in measured.labels(dataset, subset)
                for table in pairwise_tables(measured, dataset, subset, label)
            ]  # fmt: skip
            folds = spread_table(collected, dataset) if subset == "val" else None
            tables = _there(
                *overall_tables(measured, dataset, subset), folds, against_table(measured, dataset, subset), *pairs
            )
            figures = distribution_figures(measured, dataset, subset)
            heading = f"{dataset}: {SUBSETS[subset]}"
            parts.append(Section(f"data-{number}-{subset}", heading, tables=tables, figures=tuple(figures)))
        yield Section(f"data-{number}", dataset, parts=tuple(parts))


def _paper_sections(measured: Measured) -> Iterator[Section]:
    for name in PUBLISHED:
        figures = alpha_figures(measured) if name.startswith("Fig") else []
        heading = name if name.startswith("Fig") else f"Table {name}"
        section = Section(
            f"paper-{slug(name)}", heading, tables=tuple(paper_tables(measured, name)), figures=tuple(figures)
        )
        if section.has_content:
            yield section


def _worst_said(measured: Measured) -> str:
    return (
        f"Of each data set the cases with the worst {measured.benchmark.metric.title}, as the mean over systems. The "
        "pictures show the predictions of each system's first training, and the DSC of those."
    )


def _facts(collected: Collected, measured: Measured) -> Iterator[tuple[str, str]]:
    benchmark = collected.benchmark
    yield "Data sets", ", ".join(benchmark.datasets)
    yield "Systems", "; ".join(benchmark.titles)
    yield "Folds", ", ".join(map(str, benchmark.folds))
    if benchmark.repeats > 1:
        yield "Repeats", str(benchmark.repeats)
    cases = (
        f"{measured.chosen(measured.cases, *block)['case'].nunique()} {SUBSETS[block[1]]} ({block[0]})"
        for block in measured.blocks
    )
    yield "Cases", ", ".join(cases)
    seconds = [record.get("train_seconds") for record in collected.records.values()]
    known = [value for value in seconds if isinstance(value, (int, float))]
    if known:
        yield "Training in all", f"{sum(known) / 3600:.1f} hours in {len(known)} trainings"


def _tables_of(sections: Iterable[Section]) -> Iterator[Table]:
    for section in sections:
        yield from section.tables
        yield from _tables_of(section.parts)


def _figures_of(sections: Iterable[Section]) -> Iterator[Figure]:
    for section in sections:
        yield from section.figures
        yield from _figures_of(section.parts)


def _with_names_apart(content: Content) -> Content:
    """Give all tables names of their own, and figures too."""
    named = iter(with_names_apart(content.tables))
    figures: dict[str, int] = {}

    def own_figure(figure: Figure) -> Figure:
        figures[figure.name] = figures.get(figure.name, 0) + 1
        if figures[figure.name] == 1:
            return figure
        name = f"{figure.name}_{figures[figure.name]}"
        return replace(figure, name=name, markup=figure.markup.replace(f'"{figure.name}-', f'"{name}-'))

    def own(section: Section) -> Section:
        tables = tuple(next(named) for _ in section.tables)
        own_figures = tuple(own_figure(figure) for figure in section.figures)
        return replace(section, tables=tables, figures=own_figures, parts=tuple(map(own, section.parts)))

    missing = None if content.missing is None else next(named)
    return replace(content, missing=missing, sections=tuple(map(own, content.sections)))
