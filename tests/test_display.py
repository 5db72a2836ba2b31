"""Names on a terminal: markup and escape sequences in them are shown, not obeyed."""

import pytest

from antpitta.cli.display import console, new_table, printable


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("\x1b]0;title\x07x", r"\x1b]0;title\x07x"),
        ("a\rb", r"a\rb"),
        ("\x9b2J", r"\x9b2J"),
        ("b\udcff", r"b\udcff"),
        ("\u202egpj", r"\u202egpj"),
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
