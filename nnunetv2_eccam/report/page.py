"""The report of a benchmark: its sections, as one page and as files."""

import base64
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import jinja2

from nnunetv2_eccam.files import written_whole
from nnunetv2_eccam.report.figures import Figure, case_figures, curve_figures
from nnunetv2_eccam.report.measured import SUBSETS, Measured
from nnunetv2_eccam.report.paper_tables import paper_tables
from nnunetv2_eccam.report.result_tables import case_table, comparisons, folds, overall, overview
from nnunetv2_eccam.report.run_tables import commands_of, cost_table, missing_table, runs_table
from nnunetv2_eccam.report.table import ENDINGS, Table
from nnunetv2_eccam.report.worst_cases import WorstCase, worst_cases
from nnunetv2_eccam.systems.published import PUBLISHED

HERE = Path(__file__).parent


class Section(NamedTuple):
    """A section of the page: tables, figures after them, pictures of cases and commands that were run.

    The template adds text to the one whose ``name`` is ``methods`` or ``worst``. Without content it is left out.
    """

    name: str
    heading: str
    tables: list[Table] = []
    figures: list[Figure] = []
    worst: list[WorstCase] = []
    commands: list[str] = []


def write_report(work_dir: Path) -> Path:
    """Write ``report/index.html``, ``report/tables`` and ``report/figures`` of a benchmark, complete or not.

    The same scores, records and logs give the same bytes. Tables and figures of an earlier report that this one does
    not have are removed.

    Args:
        work_dir: the benchmark's work folder, with ``spec.json``.

    Returns:
        the page.

    Raises:
        UserError: the folder is not that of a benchmark, or something in it is wrong.
    """
    measured = Measured(work_dir)
    folder = work_dir / "report"
    tables, figures, page = folder / "tables", folder / "figures", folder / "index.html"
    for part in (tables, figures):  # first, since what follows may take minutes
        part.mkdir(parents=True, exist_ok=True)
    missing = missing_table(measured)
    sections = list(_sections(measured))
    sections = [section for section in sections if section.name == "methods" or any(section[2:])]
    every = [*missing, *(table for section in sections for table in section.tables)]
    written = {path for table in every for path in table.write(tables)}
    for figure in (figure for section in sections for figure in section.figures):
        written.add(figures / f"{figure.name}.svg")
        with written_whole(figures / f"{figure.name}.svg") as partial:
            partial.write_text(figure.svg, encoding="utf-8")
    with written_whole(page) as partial:
        partial.write_bytes(_page(measured, missing, sections).encode())
    for path in (*tables.iterdir(), *figures.iterdir()):
        if path.suffix in (*ENDINGS, ".svg") and path not in written and not path.name.startswith("."):
            path.unlink()
    return page


def _sections(measured: Measured) -> Iterator[Section]:
    worst = worst_cases(measured)
    linked = {each.key: each.name for each in worst if each.pictures}
    yield Section("overview", "Overview", overview(measured))
    yield Section("methods", "Methods")
    for dataset, subset in measured.blocks:
        tables = overall(measured, dataset, subset) + comparisons(measured, dataset, subset)
        tables += folds(measured, dataset) if subset == "val" else []
        name = f"data-{measured.spec.datasets.index(dataset)}-{subset}"
        yield Section(name, f"{dataset}: {SUBSETS[subset]}", tables, list(case_figures(measured, dataset, subset)))
    printed = [table for name in PUBLISHED for table in paper_tables(measured, name)]
    yield Section("paper", "Beside the paper", printed)
    yield Section("cost", "Training and its cost", cost_table(measured), list(curve_figures(measured)))
    yield Section("worst", "Worst cases", worst=worst)
    if measured.blocks:
        yield Section("all-cases", "All cases", [case_table(measured, linked)])
    yield Section("provenance", "Provenance", runs_table(measured), commands=commands_of(measured))


def _page(measured: Measured, missing: list[Table], sections: list[Section]) -> str:
    """Fill the template.

    Jinja escapes every text. Figures are images, in which nothing runs. The page carries a content security policy
    by which browsers run this package's script alone, by its hash, and load nothing.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE), autoescape=True, trim_blocks=True, lstrip_blocks=True,
        undefined=jinja2.StrictUndefined, keep_trailing_newline=True,
    )  # fmt: skip
    script = (HERE / "page.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    cases = [f"{len(set(measured.rows('volume', measured.labels(*block)[0])['case']))} {SUBSETS[block[1]]} ({block[0]})"
             for block in measured.blocks]  # fmt: skip
    return environment.get_template("page.html").render(
        spec=measured.spec, metric=measured.metric, missing=missing, sections=sections, cases=cases, script=script,
        digest=digest, style=(HERE / "page.css").read_text(encoding="utf-8"), endings=ENDINGS,
        with_patients="patient" in measured.levels, encoded=lambda text: base64.b64encode(text.encode()).decode(),
    )  # fmt: skip
