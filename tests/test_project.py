"""The files around the code say what the code does: versions, commands, constraints, links."""

import ast
import inspect
import re
import shlex
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from typer.main import get_command

import antpitta
from antpitta.cli import app

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCUMENTS = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
COMMANDS = get_command(app).commands
# Absolute places of one machine; the pattern does not match its own text.
MACHINE = re.compile(r"(?<![\w.~}/])/(work|root|tmp/w|opt)\b(?!\|)")


def blocks_of(text, kind=""):
    """The fenced code blocks of one kind."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [block for name, block in found if name == kind]


def commands_of(text):
    """Every line of a plain block that starts with antpitta, as its arguments."""
    lines = "\n".join(blocks_of(text)).replace("\\\n", " ").splitlines()
    return [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("antpitta ")]


def pins():
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pairs = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(name): version for name, version in pairs}


def options_of(command):
    return {name for option in command.params for name in (*option.opts, *option.secondary_opts)}


def test_citation_carries_the_version_and_licence_of_the_package():
    text = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    said = dict(re.findall(r'^(version|license): "?([^"\n]+)"?$', text, re.MULTILINE))
    assert said == {"version": PROJECT["version"], "license": PROJECT["license"]}


def test_newest_heading_of_the_changelog_names_the_version_of_the_package():
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    newest = re.search(r"^## (.*)$", text, re.MULTILINE)
    assert PROJECT["version"] in re.findall(r"\d+\.\d+\.\d+", newest[1])


def test_licence_is_the_whole_text():
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    sections = re.findall(r"^   (\d)\. [A-Z]", text, re.MULTILINE)
    assert sections == list("123456789")
    assert "END OF TERMS AND CONDITIONS" in text
    # a name where the template has brackets would be somebody else's copyright
    assert re.findall(r"^ *Copyright .*$", text, re.MULTILINE) == [
        "   Copyright [yyyy] [name of copyright owner]"
    ]


@pytest.mark.parametrize("words", commands_of(README), ids=" ".join)
def test_command_line_of_the_readme_parses(words):
    command = COMMANDS[words[0]]
    command.make_context(words[0], words[1:])  # raises for a flag or argument it does not know


def test_readme_shows_every_command_of_the_loop():
    shown = {words[0] for words in commands_of(README)}
    assert shown | {"demo"} == set(COMMANDS)  # make runs the demo


def test_every_flag_and_command_named_in_the_readme_exists():
    prose = re.sub(r"^```.*?^```$", "", README, flags=re.MULTILINE | re.DOTALL)
    spans = re.findall(r"`([^`]+)`", prose)
    flags = {flag for span in spans for flag in re.findall(r"(?<!\S)--[a-z-]+", span)}
    known = set().union(*map(options_of, COMMANDS.values()), {"--help"})
    assert flags
    assert flags <= known
    verbs = {span.split()[1] for span in spans if span.startswith("antpitta ")}
    assert verbs <= set(COMMANDS)


def test_calls_of_the_readme_fit_the_functions():
    (code,) = blocks_of(README, "python")
    calls = [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Call)]
    names = [call.func.attr for call in calls]
    assert {"open_data", "check", "train", "evaluate", "ensemble", "predict"} <= set(names)
    for call, name in zip(calls, names, strict=True):
        given = {word.arg: None for word in call.keywords}
        inspect.signature(getattr(antpitta, name)).bind(*call.args, **given)


def test_table_of_recipes_is_that_of_the_shipped_ones():
    section = README.split("### Recipes")[1].split("\n## ")[0]
    named = set(re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE))
    assert named == {path.stem for path in (ROOT / "src/antpitta/recipes").glob("*.toml")}


def test_help_of_every_command_has_an_example_that_parses():
    for name, command in COMMANDS.items():
        example = re.search(r"Example: `antpitta ([^`]+)`", command.help)
        assert example, name
        first, *words = shlex.split(example[1])
        assert first == name
        command.make_context(name, words)


@pytest.mark.parametrize(
    "requirement",
    [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["dev"]],
    ids=lambda text: Requirement(text).name,
)
def test_constraints_pin_what_the_project_asks_for(requirement):
    wanted = Requirement(requirement)
    assert wanted.specifier.contains(pins()[canonicalize_name(wanted.name)])


def test_constraints_are_exact_versions_that_any_index_has():
    for name, version in pins().items():
        assert re.fullmatch(r"[0-9][0-9a-z.]*", version), name  # no range, no +cpu
    assert "antpitta" not in pins()


def test_setup_takes_torch_before_all_else():
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    installs = [line for line in text.splitlines() if line.startswith("\t@$(PIP)")]
    assert len(installs) == 2
    assert "^torch==" in installs[0]
    assert "-e '.[dev]'" in installs[1]


def test_continuous_integration_runs_make_test():
    script = ROOT / ".ci" / "run"
    assert script.stat().st_mode & 0o111 == 0o111
    assert script.read_text(encoding="utf-8").splitlines()[-1] == "make test"


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_of_the_documents_lead_somewhere(path):
    text = path.read_text(encoding="utf-8")
    places = re.findall(r"\]\((?!https?:)([^)#]+)", text)
    assert [place for place in places if not (path.parent / place).exists()] == []


def test_no_text_names_a_place_of_one_machine():
    git = shutil.which("git")
    if git is None or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout: which files belong to the project is unknown")
    listed = subprocess.run(
        [git, "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, check=True,
    ).stdout.decode()  # fmt: skip
    found = []
    for name in listed.split("\0"):
        path = ROOT / name
        if not name or not path.is_file() or b"\0" in (content := path.read_bytes()):
            continue
        lines = content.decode("utf-8", "replace").splitlines()
        found += [f"{name}:{i}: {line}" for i, line in enumerate(lines, 1) if MACHINE.search(line)]
    assert found == []
