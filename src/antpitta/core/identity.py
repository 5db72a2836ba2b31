"""When are two names the same? The one rule for species, and the one for recordings.

- Names are compared in Unicode's composed form (a Mac writes ``é`` as two characters), without
  case, and with single blanks.
- A species whose label is a bare number is named ``s`` and the number. So an id in a table and
  the name that antpitta writes are one class, whatever other tables there are. All digits count:
  ``7`` and ``007`` are two species.
- A species that is called like another column of a table has a column of its own name, with
  ``(species)`` behind it.
- Names that differ only in accents, punctuation, blanks or leading zeros are similar. They stay
  two names, and whoever compares them reports it.
"""

import re
import unicodedata
from collections.abc import Collection, Iterable, Mapping

_COLUMN_SUFFIX = " (species)"
_NUMBERED = re.compile(r"s(\d+)", re.IGNORECASE | re.ASCII)


def clean_name(text: str) -> str:
    """The name in Unicode's composed form, with single blanks.

    Parameters
    ----------
    text : a name, as a table or a disk has it

    Returns
    -------
    name : for display

    Examples
    --------
    >>> clean_name(" Zorzal  pa\\u0301lido ")
    'Zorzal pálido'
    """
    return " ".join(unicodedata.normalize("NFC", text).split())


def species_name(label: str) -> str:
    """The name of the class that a label means, in the spelling of the label.

    Parameters
    ----------
    label : as a table writes it

    Returns
    -------
    name : of the class

    Examples
    --------
    >>> species_name("11")
    's11'
    """
    name = clean_name(label)
    return f"s{name}" if _is_number(name) else name


def species_key(label: str) -> str:
    """What two labels of one species have in common.

    Parameters
    ----------
    label : as a table writes it

    Returns
    -------
    key : equal for labels that mean one species

    Examples
    --------
    >>> species_key("COQUI") == species_key("Coqui "), species_key("11") == species_key("s11")
    (True, True)
    """
    return unicodedata.normalize("NFC", species_name(label).casefold())


def recording_key(name: str) -> str:
    """What two spellings of a recording's name have in common.

    Parameters
    ----------
    name : id, file name or path

    Returns
    -------
    key : equal for names that mean one recording
    """
    return unicodedata.normalize("NFC", clean_name(name).casefold())


def similar_key(name: str) -> str:
    """What similar names have in common: lower-case letters and digits, and single blanks.

    Parameters
    ----------
    name : of a species

    Returns
    -------
    key : equal for names that differ in accents, punctuation or leading zeros at most

    Examples
    --------
    >>> similar_key("Fowler's Toad") == similar_key("fowlers-toad")
    True
    """
    letters = unicodedata.normalize("NFKD", species_key(name))
    plain = "".join(letter for letter in letters if not unicodedata.combining(letter))
    words = re.sub(r"[\W_]+", " ", re.sub("['\u2019`]", "", plain)).strip()
    return re.sub(r"(?<![0-9])0+(?=[0-9])", "", words)


def species_order(name: str) -> tuple[int, int, str]:
    """A key to sort classes: numbers by their value, then names.

    Parameters
    ----------
    name : of a class

    Returns
    -------
    key : for :func:`sorted`
    """
    if match := _NUMBERED.fullmatch(name):
        digits = match[1].lstrip("0")
        return 0, len(digits), f"{digits} {name}"
    return 1, 0, name


def similar_names(names: Iterable[str]) -> list[tuple[str, ...]]:
    """The groups of different species whose names are similar.

    Parameters
    ----------
    names : of species, each once

    Returns
    -------
    groups : each of two names or more, sorted
    """
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(similar_key(name).replace(" ", ""), []).append(name)
    return sorted(tuple(sorted(group)) for key, group in groups.items() if key and len(group) > 1)


def species_columns(names: Iterable[str], others: Collection[str]) -> list[str]:
    """The columns of species in a table that has other columns, too.

    Parameters
    ----------
    names : of the species
    others : names of the other columns

    Returns
    -------
    columns : the names, those that are taken with a suffix

    Examples
    --------
    >>> species_columns(["wren", "source"], ["recording", "source"])
    ['wren', 'source (species)']
    """
    return [name + _COLUMN_SUFFIX if _base_column(name) in others else name for name in names]


def species_of_columns(columns: Iterable[str], others: Collection[str]) -> list[str]:
    """The species of a table's columns: the inverse of :func:`species_columns`.

    Parameters
    ----------
    columns : of the species alone
    others : names of the other columns

    Returns
    -------
    names : of the species
    """
    return [
        name.removesuffix(_COLUMN_SUFFIX) if _base_column(name) in others else name
        for name in columns
    ]


def class_names(
    labels: Iterable[str], names: Mapping[str, Iterable[str]] | None = None
) -> dict[str, str]:
    """The class of each label, in the order of the columns.

    A class is written as the first of its spellings in the labels, in alphabetical order.

    Parameters
    ----------
    labels : as the tables write them
    names : the other names of each species; a label that is another name of one species, and no
        species itself, is that species

    Returns
    -------
    names : label -> class, in the order of the columns
    """
    listed = {species_key(label): species_name(label) for label in names or {}}
    owners = _species_of_other_names(names or {})
    key_of: dict[str, str] = {}
    spellings: dict[str, list[str]] = {}
    for label in labels:
        key, spelling = species_key(label), species_name(label)
        if key in owners and key not in listed:
            key = owners[key]
            spelling = listed[key]
        key_of[label] = key
        spellings.setdefault(key, []).append(spelling)
    class_of = {label: min(spellings[key]) for label, key in key_of.items()}
    return dict(sorted(class_of.items(), key=lambda item: (species_order(item[1]), item[0])))


def _species_of_other_names(names: Mapping[str, Iterable[str]]) -> dict[str, str]:
    """The key of the species that alone has each other name, by the name's key."""
    owners: dict[str, set[str]] = {}
    for label, others in names.items():
        for other in others:
            if not _is_number(clean_name(other)):  # a count or a rank is no name
                owners.setdefault(species_key(other), set()).add(species_key(label))
    return {name: min(keys) for name, keys in owners.items() if len(keys) == 1}


def _base_column(name: str) -> str:
    """The name without any of the suffixes."""
    while name.endswith(_COLUMN_SUFFIX):
        name = name.removesuffix(_COLUMN_SUFFIX)
    return name


def _is_number(name: str) -> bool:
    return name.isascii() and name.isdigit()
