"""What is said in several files of the project agrees: versions, bounds, commands, pages."""

import re
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml

import nnunetv2_eccam
from nnunetv2_eccam.cli import COMMANDS

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def workflow(name: str) -> dict:
    return yaml.safe_load(text(f".github/workflows/{name}.yml"))


def test_the_version_is_pyprojects_and_the_changelog_begins_with_it():
    assert nnunetv2_eccam.__version__ == version("nnunetv2-eccam") == PROJECT["version"]
    newest = re.search(r"^## \[?(\d+\.\d+\.\d+)", text("CHANGELOG.md"), re.M)
    assert newest[1] == PROJECT["version"].removesuffix(".dev0")


def test_the_pythons_of_the_classifiers_are_those_that_are_tested():
    said = [name.split(" :: ")[-1] for name in PROJECT["classifiers"] if re.search(r"Python :: 3\.\d+$", name)]
    assert workflow("tests")["jobs"]["all"]["strategy"]["matrix"]["python"] == said
    assert PROJECT["requires-python"] == f">={said[0]}"


def test_the_oldest_and_the_newest_nnunet_that_are_allowed_are_tested():
    (bound,) = [name for name in PROJECT["dependencies"] if name.startswith("nnunetv2")]
    tested = [entry["nnunet"] for entry in workflow("tests")["jobs"]["nnunet"]["strategy"]["matrix"]["include"]]
    assert bound in tested
    oldest = re.search(r">=([\d.]+)", bound)[1]
    assert any(name.startswith(f"nnunetv2=={oldest}") for name in tested)


@pytest.mark.parametrize("job", [job for name in ("tests", "docs", "build") for job in workflow(name)["jobs"].items()])
def test_what_the_workflows_make_is_a_target_of_the_makefile(job):
    made = [word for step in job[1].get("steps", []) for word in re.findall(r"make (\w+)", step.get("run", ""))]
    assert all(re.search(rf"^{target}:", text("Makefile"), re.M) for target in made)


def test_the_citation_names_the_paper_and_nnunet():
    citation = yaml.safe_load(text("CITATION.cff"))
    cited = [citation["preferred-citation"], *citation["references"]]
    assert any("Collaborative Attention" in each["title"] for each in cited)
    assert any("nnU-Net" in each["title"] and each["doi"] for each in cited)


def test_every_page_is_in_the_sites_navigation_and_every_command_on_its_page():
    navigation = tomllib.loads(text("zensical.toml"))["project"]["nav"]
    listed = [page for section in navigation for pages in section.values() for each in pages for page in each.values()]
    pages = [path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")]
    assert sorted(listed) == sorted(pages)
    commands = re.findall(r"^\| `([a-z][\w-]*)` \|", text("docs/reference/commands.md"), re.M)
    assert commands[1:] == list(COMMANDS)  # the first is the heading
