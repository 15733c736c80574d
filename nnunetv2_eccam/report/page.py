"""The report of a benchmark: its sections, as one page and as files."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nnunetv2_eccam.errors import UserError
from nnunetv2_eccam.files import saved
from nnunetv2_eccam.report.case_tables import case_table
from nnunetv2_eccam.report.collect import SUBSETS, Collected, collect
from nnunetv2_eccam.report.figures import Figure, case_figures, curve_figures
from nnunetv2_eccam.report.measured import Measured
from nnunetv2_eccam.report.paper_tables import paper_tables
from nnunetv2_eccam.report.result_tables import comparisons, folds, overall, overview
from nnunetv2_eccam.report.run_tables import commands_of, cost_table, costs, missing_table, runs_table
from nnunetv2_eccam.report.table import ENDINGS, Table
from nnunetv2_eccam.report.worst_cases import WorstCase, worst_cases
from nnunetv2_eccam.systems.published import PUBLISHED

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Section:
    """A section of the page.

    Attributes:
        name: its id; the template adds text to ``methods`` and ``worst``.
        heading: as it is shown, and listed in the contents.
        tables: of it.
        figures: after those.
        worst: pictures of cases.
        commands: that were run.
    """

    name: str
    heading: str
    tables: tuple[Table, ...] = ()
    figures: tuple[Figure, ...] = ()
    worst: tuple[WorstCase, ...] = ()
    commands: tuple[str, ...] = ()

    @property
    def has_content(self) -> bool:
        """Whether there is anything but its heading."""
        return bool(self.tables or self.figures or self.worst or self.commands or self.name == "methods")


def write_report(work_dir: Path) -> Path:
    """Write ``report/index.html``, ``report/tables`` and ``report/figures`` of a benchmark, complete or not.

    The same scores, records and logs give the same bytes. Tables and figures of an earlier report that this one does
    not have are removed.

    Args:
        work_dir: the benchmark's work folder, with ``spec.json``.

    Returns:
        the page.

    Raises:
        UserError: the folder is not that of a benchmark, something in it cannot be read, or the report cannot be
            written.
    """
    collected = collect(work_dir)
    folder = work_dir / "report"
    tables, figures, page = folder / "tables", folder / "figures", folder / "index.html"
    try:
        for part in (tables, figures):  # first, since what follows may take minutes
            part.mkdir(parents=True, exist_ok=True)
        measured = Measured(collected)
        missing = missing_table(collected, measured)
        sections = _apart([section for section in _sections(collected, measured) if section.has_content])
        every = [*([missing] if missing else []), *(table for section in sections for table in section.tables)]
        written = {path for table in every for path in table.write(tables)}
        for figure in (figure for section in sections for figure in section.figures):
            written.add(figures / f"{figure.name}.svg")
            with saved(figures / f"{figure.name}.svg") as partial:
                partial.write_text(figure.svg, encoding="utf-8")
        with saved(page) as partial:
            partial.write_bytes(_page(collected, measured, missing, sections).encode())
        for path in (*tables.iterdir(), *figures.iterdir()):
            if path.suffix in (*ENDINGS, ".svg") and path not in written and not path.name.startswith("."):
                path.unlink()
    except OSError as error:
        raise UserError(f"{error.filename or page} cannot be written: {error.strerror or error}") from error
    return page


def _sections(collected: Collected, measured: Measured) -> Iterator[Section]:
    worst = worst_cases(collected, measured)
    linked = {each.key: each.name for each in worst if each.pictures}
    hours = {key: float(cost["Hours per training"]) for key, cost in costs(collected).items()}
    yield Section("overview", "Overview", _there(overview(measured, hours)))
    yield Section("methods", "Methods")
    for dataset, subset in measured.blocks:
        spread = folds(measured, dataset) if subset == "val" else None
        tables = _there(*overall(measured, dataset, subset), *comparisons(measured, dataset, subset), spread)
        name = f"data-{collected.spec.datasets.index(dataset)}-{subset}"
        figures = tuple(case_figures(measured, dataset, subset))
        yield Section(name, f"{dataset}: {SUBSETS[subset]}", tables, figures)
    printed = tuple(table for name in PUBLISHED for table in paper_tables(measured, name))
    yield Section("paper", "Beside the paper", printed)
    yield Section("cost", "Training and its cost", _there(cost_table(collected)), tuple(curve_figures(collected)))
    yield Section("worst", "Worst cases", worst=tuple(worst))
    if next(measured.blocks, None):
        yield Section("all-cases", "All cases", (case_table(measured, linked),))
    yield Section("provenance", "Provenance", _there(runs_table(collected)), commands=tuple(commands_of(collected)))


def _there(*tables: Table | None) -> tuple[Table, ...]:
    return tuple(table for table in tables if table is not None)


def _apart(sections: Iterable[Section]) -> list[Section]:
    """Number tables and figures of one name, since two data sets may differ in nothing but their signs."""
    taken: dict[str, int] = {}

    def own(each: Any) -> Any:
        taken[each.name] = taken.get(each.name, 0) + 1
        return each if taken[each.name] == 1 else replace(each, name=f"{each.name}_{taken[each.name]}")

    return [replace(section, tables=tuple(map(own, section.tables)), figures=tuple(map(own, section.figures)))
            for section in sections]  # fmt: skip


def _page(collected: Collected, measured: Measured, missing: Table | None, sections: list[Section]) -> str:
    """Fill the template.

    Jinja escapes every text. Figures are images, in which nothing runs. The page carries a content security policy
    by which browsers run this package's script alone, by its hash, and load nothing.
    """
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE), autoescape=True, trim_blocks=True, lstrip_blocks=True,
        undefined=jinja2.StrictUndefined, keep_trailing_newline=True,
    )  # fmt: skip
    script = (HERE / "page.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    cases = [f"{len(set(measured.rows('volume', measured.labels(*block)[0])['case']))} {SUBSETS[block[1]]} ({block[0]})"
             for block in measured.blocks]  # fmt: skip
    return environment.get_template("page.html").render(
        spec=collected.spec, metric=measured.metric, missing=missing, sections=sections, cases=cases, script=script,
        digest=digest, style=(HERE / "page.css").read_text(encoding="utf-8"), endings=ENDINGS,
        with_patients="patient" in measured.levels, encoded=lambda text: base64.b64encode(text.encode()).decode(),
    )  # fmt: skip
