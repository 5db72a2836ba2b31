"""Names on a terminal: markup and escape sequences in them are shown, not obeyed."""

import ast
import io
from pathlib import Path

import pytest
from rich.text import Text

from antpitta.cli import display
from antpitta.cli.display import PlainConsole, console, new_table, print_error, printable


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("\x1b]0;title\x07x", r"\x1b]0;title\x07x"),
        ("a\rb", r"a\rb"),
        ("\x9b2J", r"\x9b2J"),
        ("b\udcff", r"b\udcff"),
        ("\u202egpj", r"\u202egpj"),
        ("a\nerror: b", r"a\nerror: b"),
        ("a\tb", r"a\tb"),
        ("\u2028a\u2029\u200e\u061c\x7f\x85", r"\u2028a\u2029\u200e\u061c\x7f\x85"),
        ("Elachistocleis bicolor \U0001f438, é", "Elachistocleis bicolor \U0001f438, é"),
    ],
)
def test_control_characters_are_escaped(name, shown):
    assert printable(name) == shown
    with console.capture() as lines:
        console.print(f"file {name}")
    assert lines.get() == f"file {shown}\n"


@pytest.mark.parametrize("name", ["[red]t.csv", "[/]", "[bold", ":frog:", "[link=x]y[/link]"])
def test_markup_is_shown_as_it_is(name):
    table = new_table(name, ("species",))
    table.add_row(name)
    with console.capture() as lines:
        console.print(name)
        console.print(table)
    assert lines.get().count(name) == 3


def test_escape_sequence_in_a_table_is_escaped():
    table = new_table("t", ("species",))
    table.add_row("\x1b[31mred")
    with console.capture() as lines:
        console.print(table)
    assert r"\x1b[31mred" in lines.get()
    assert "\x1b" not in lines.get()


@pytest.mark.parametrize("terminal", [True, False])
def test_name_of_a_moving_bar_is_escaped(monkeypatch, terminal):
    own, written = PlainConsole(), io.StringIO()
    own.file, own._force_terminal = written, terminal
    monkeypatch.setattr(display, "console", own)
    with display.training_progress() as progress:
        progress.update("[red]\x1b]0;title\x07\u202ex\ny[/]", 1, 2, 0.5)
    text = written.getvalue()
    assert r"[red]\x1b]0;title\x07\u202ex\ny[/]" in text
    assert not any(control in text for control in ("\x1b]", "\x07", "\u202e"))


@pytest.mark.parametrize("name", ["\x1b[2J", "\u202e"])
def test_text_that_is_no_string_is_escaped_as_well(name):
    with console.capture() as lines:
        console.print(Text(f"{name}\nsecond line"))
    assert lines.get() == f"{printable(name)}\nsecond line\n"


def test_error_is_one_line_without_control_characters(capsys):
    print_error("antpitta: [red]a\n\x1b[2J\rb\udcff")
    assert capsys.readouterr().err == "antpitta: [red]a\\n\\x1b[2J\\rb\\udcff\n"


def test_only_this_module_prints():
    package = Path(display.__file__).parents[1]
    printing = {"print", "echo", "secho", "write", "style"}
    for path in sorted(package.rglob("*.py")):
        if path == package / "cli" / "display.py":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Name):
                assert node.id != "print", path
            elif isinstance(node, ast.Attribute):
                owner = ast.unparse(node.value)
                assert not (owner in ("sys.stdout", "sys.stderr") and node.attr in printing), path
                assert not (owner == "typer" and node.attr in printing), path
