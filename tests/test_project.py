"""The files around the code agree with it: versions, extras, commands, constraints, the wheel."""

import ast
import inspect
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from typer.main import get_command

import antpitta
from antpitta.cli import app
from antpitta.core.errors import TRAIN_PACKAGES

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
EXTRAS = PROJECT["optional-dependencies"]
COMMANDS = get_command(app).commands
# Absolute paths of one machine; the pattern does not match its own text.
MACHINE = re.compile(r"(?<![\w.~}/])/(work|root|tmp/w|opt)\b(?!\|)")


def blocks_of(text, kind=""):
    """The fenced code blocks of one kind."""
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [block for name, block in blocks if name == kind]


def commands_of(text):
    """Every line of a plain block that starts with antpitta, as its arguments."""
    lines = "\n".join(blocks_of(text)).replace("\\\n", " ").splitlines()
    return [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("antpitta ")]


def pins():
    """The pinned version of each package of constraints.txt."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pairs = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(name): version for name, version in pairs}


def requirements(*extras):
    """What the base install and some extras require."""
    texts = [*PROJECT["dependencies"], *(text for extra in extras for text in EXTRAS[extra])]
    return [wanted for wanted in map(Requirement, texts) if wanted.name != PROJECT["name"]]


def names(texts):
    return {canonicalize_name(Requirement(text).name) for text in texts}


def options_of(command):
    return {name for option in command.params for name in (*option.opts, *option.secondary_opts)}


def test_citation_carries_the_version_and_licence_of_the_package():
    text = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    fields = dict(re.findall(r'^(version|license): "?([^"\n]+)"?$', text, re.MULTILINE))
    assert fields == {"version": PROJECT["version"], "license": PROJECT["license"]}


def test_newest_heading_of_the_changelog_names_the_version_of_the_package():
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    newest = re.search(r"^## (.*)$", text, re.MULTILINE)
    assert PROJECT["version"] in re.findall(r"\d+\.\d+\.\d+", newest[1])


def test_licence_is_the_whole_text():
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    sections = re.findall(r"^   (\d)\. [A-Z]", text, re.MULTILINE)
    assert sections == list("123456789")
    assert "END OF TERMS AND CONDITIONS" in text
    # a name in place of the brackets of the template would claim somebody's copyright
    assert re.findall(r"^ *Copyright .*$", text, re.MULTILINE) == [
        "   Copyright [yyyy] [name of copyright owner]"
    ]


@pytest.mark.parametrize(
    "words",
    [words for page in PAGES for words in commands_of(page.read_text(encoding="utf-8"))],
    ids=" ".join,
)
def test_command_line_of_a_page_parses(words):
    command = COMMANDS[words[0]]
    command.make_context(words[0], words[1:])  # raises for an unknown option or argument


def test_commands_of_the_readme_are_the_main_ones():
    shown = {words[0] for words in commands_of(README)}
    assert {"init", "check", "train", "evaluate", "predict"} <= shown <= set(COMMANDS)


def test_options_and_commands_named_in_the_text_of_the_readme_exist():
    text = re.sub(r"^```.*?^```$", "", README, flags=re.MULTILINE | re.DOTALL)
    spans = [span for span in re.findall(r"`([^`]+)`", text) if not span.startswith("pip ")]
    options = {option for span in spans for option in re.findall(r"(?<!\S)--[a-z-]+", span)}
    known = set().union(*map(options_of, COMMANDS.values()), {"--help"})
    assert options
    assert options <= known
    verbs = {span.split()[1] for span in spans if span.startswith("antpitta ")}
    assert verbs - {"COMMAND"} <= set(COMMANDS)


def test_calls_of_the_readme_fit_the_functions():
    (code,) = blocks_of(README, "python")
    calls = [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Call)]
    names = [call.func.attr for call in calls]
    assert {"open_data", "check", "train", "evaluate", "ensemble", "predict"} <= set(names)
    for call, name in zip(calls, names, strict=True):
        keywords = {keyword.arg: None for keyword in call.keywords}
        inspect.signature(getattr(antpitta, name)).bind(*call.args, **keywords)


def test_table_of_recipes_lists_the_shipped_ones():
    page = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")
    table = page.split("\n\n## ")[0].split("| recipe |")[-1]
    listed = set(re.findall(r"^\| `([\w-]+)`", table, re.MULTILINE))
    assert {path.stem for path in (ROOT / "src/antpitta/recipes").glob("*.toml")} <= listed


def test_help_of_every_command_has_an_example_that_parses():
    for name, command in COMMANDS.items():
        example = re.search(r"Example: `antpitta ([^`]+)`", command.help)
        assert example, name
        first, *words = shlex.split(example[1])
        assert first == name
        command.make_context(name, words)


def test_extras_are_those_that_the_code_imports():
    assert set(EXTRAS) == {*("train", "postgres", "embedding", "ray", "remote", "dev", "fuzz")}
    assert EXTRAS["dev"][0] == "antpitta[embedding,postgres,ray,remote,train]"
    assert not names(PROJECT["dependencies"]) & names(EXTRAS["train"])


def test_packages_that_the_train_error_explains_are_those_of_the_extra():
    distributions = {
        "lightning_fabric": "lightning-fabric",
        "iterstrat": "iterative-stratification",
    }
    explained = {canonicalize_name(distributions.get(name, name)) for name in TRAIN_PACKAGES}
    assert explained - names(EXTRAS["train"]) == {"torchvision"}  # comes with timm
    assert names(EXTRAS["train"]) <= explained


@pytest.mark.parametrize("wanted", requirements(*EXTRAS), ids=lambda wanted: wanted.name)
def test_constraints_pin_every_requirement(wanted):
    assert wanted.specifier.contains(pins()[canonicalize_name(wanted.name)])


def test_constraints_are_exact_versions_that_any_index_has():
    for name, version in pins().items():
        assert re.fullmatch(r"[0-9][0-9a-z.]*", version), name  # no range, no +cpu
    assert "antpitta" not in pins()


def test_makefile_installs_torch_first():
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    installs = [line for line in text.splitlines() if line.startswith("\t@$(PIP)")]
    installs = [line for line in installs if "[fuzz]" not in line]
    assert len(installs) == 2
    assert "^torch==" in installs[0]
    assert "-e '.[dev]'" in installs[1]


def test_continuous_integration_runs_make_test():
    script = ROOT / ".ci" / "run"
    assert script.stat().st_mode & 0o111 == 0o111
    assert script.read_text(encoding="utf-8").splitlines()[-1] == "make test"


def test_wheel_is_pure_python_and_holds_only_the_package(tmp_path):
    pytest.importorskip("setuptools", reason="the wheel is built without an index")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path / name)
    shutil.copytree(ROOT / "src", tmp_path / "src", ignore=shutil.ignore_patterns("*.egg-info"))
    shutil.copytree(ROOT / "benchmarks", tmp_path / "benchmarks")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-index",
               "--no-build-isolation", "--wheel-dir", "dist", "."]  # fmt: skip
    environment = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    subprocess.run(command, cwd=tmp_path, env=environment, check=True)
    [wheel] = (tmp_path / "dist").iterdir()
    assert wheel.name == f"antpitta-{PROJECT['version']}-py3-none-any.whl"
    files = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in files} == {
        *("antpitta", f"antpitta-{PROJECT['version']}.dist-info")
    }
    data = {path.relative_to(ROOT / "src").as_posix() for suffix in ("toml", "html", "typed")
            for path in (ROOT / "src").rglob(f"*.{suffix}")}  # fmt: skip
    assert data <= set(files)


def test_no_file_names_a_path_of_one_machine():
    git = shutil.which("git")
    if git is None or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout: which files belong to the project is unknown")
    listed = subprocess.run(
        [git, "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, check=True,
    ).stdout.decode()  # fmt: skip
    lines_with_paths = []
    for name in listed.split("\0"):
        path = ROOT / name
        if not name or not path.is_file() or b"\0" in (content := path.read_bytes()):
            continue
        lines = content.decode("utf-8", "replace").splitlines()
        lines_with_paths += [
            f"{name}:{i}: {line}" for i, line in enumerate(lines, 1) if MACHINE.search(line)
        ]
    assert lines_with_paths == []
