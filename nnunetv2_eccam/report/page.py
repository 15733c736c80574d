"""The page: one file that asks for nothing from outside, and in which no name can become code."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nnunetv2_eccam.errors import UserError
from nnunetv2_eccam.report.content import Content
from nnunetv2_eccam.report.formatting import shown
from nnunetv2_eccam.report.svg import legend_mark
from nnunetv2_eccam.report.table import lines_of
from nnunetv2_eccam.report.table_files import ENDINGS

HERE = Path(__file__).parent


def build_page(content: Content) -> str:
    """Write the report as HTML.

    Besides escaping all text, the page carries a content security policy by which browsers run this package's script
    and apply its style, by their hashes, and load nothing.

    Raises:
        UserError: jinja2 is not installed.
    """
    environment = _environment()
    style, script = _part("style.css") + _part("drawing.css"), _part("script.js")
    policy = (
        f"default-src 'none'; img-src data:; style-src {_hash(style)}; script-src {_hash(script)}; base-uri 'none'; "
        "form-action 'none'"
    )
    markup: Callable[[str], Any] = environment.filters["safe"]
    page = environment.get_template("page.html").render(
        content=content, style=markup(style), script=markup(script), policy=policy, endings=ENDINGS,
        lines_of=lines_of, shown=shown, markup=markup, legend_mark=legend_mark,
    )  # fmt: skip
    return str(page).lstrip()  # of the lines that the macros have left


def _environment() -> Any:
    try:
        import jinja2
    except ModuleNotFoundError:
        raise UserError("the report needs Jinja2: pip install 'nnunetv2-eccam[benchmark]'") from None
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE), autoescape=True, trim_blocks=True, lstrip_blocks=True,
        undefined=jinja2.StrictUndefined, keep_trailing_newline=True,
    )  # fmt: skip


def _part(name: str) -> str:
    return (HERE / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    """Give what a content security policy calls an element's content by."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
