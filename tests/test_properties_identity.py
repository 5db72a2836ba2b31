"""Which names are one species or one recording, for any text."""

import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from antpitta.core.identity import (
    class_names,
    clean_name,
    recording_key,
    similar_key,
    similar_names,
    species_key,
    species_name,
)

# Text that a table can hold, and names of few letters, of which many are equal.
TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=12)
CLOSE = st.text(
    st.sampled_from("aAáÁa\u0301bß1 07sS\u00a0\u017f\u03c3\u03c2\u0345\u1fb3"), max_size=5
)
NAMES = st.one_of(TEXT, CLOSE)
LATIN = st.text("abcxyzABCXYZáéîöüçñÅØ0189 -'", max_size=12)


def caseless(name):
    """Unicode's canonical caseless match (definition D145), with blanks made single."""
    words = " ".join(unicodedata.normalize("NFC", name).split())
    return unicodedata.normalize("NFD", unicodedata.normalize("NFD", words).casefold())


@given(NAMES)
def test_names_and_keys_are_their_own_names_and_keys(name):
    for key in (clean_name, species_name, species_key, recording_key, similar_key):
        assert key(key(name)) == key(name)


@given(NAMES)
def test_form_of_unicode_and_blanks_around_change_no_key(name):
    for form in ("NFC", "NFD"):
        other = f" {unicodedata.normalize(form, name)}\t"
        assert species_key(other) == species_key(name)
        assert recording_key(other) == recording_key(name)


@given(LATIN)
def test_case_changes_no_key(name):
    for other in (name.upper(), name.lower(), name.swapcase()):
        assert species_key(other) == species_key(name)
        assert recording_key(other) == recording_key(name)


@given(CLOSE, CLOSE)
def test_two_names_are_one_recording_where_they_differ_in_case_form_and_blanks_only(one, other):
    assert (recording_key(one) == recording_key(other)) == (caseless(one) == caseless(other))


@given(
    st.one_of(CLOSE, st.from_regex(r"\A[sS]?[0-9]{1,4}\Z")),
    CLOSE | st.from_regex(r"\A[0-9]{1,4}\Z"),
)
def test_two_labels_are_one_species_where_their_names_are(one, other):
    names = [
        f"s{name}" if name.isascii() and name.isdigit() else name
        for name in (clean_name(one), clean_name(other))
    ]
    assert (species_key(one) == species_key(other)) == (caseless(names[0]) == caseless(names[1]))


@given(st.lists(CLOSE, max_size=6))
def test_labels_of_one_class_are_those_of_one_key(labels):
    classes = class_names(labels)
    assert set(classes) == set(labels)
    for one in labels:
        for other in labels:
            same = classes[one] == classes[other]
            assert same == (species_key(one) == species_key(other))


@given(st.lists(CLOSE, max_size=6), st.randoms(use_true_random=False))
def test_classes_do_not_depend_on_the_order_of_the_tables(labels, random):
    shuffled = list(labels)
    random.shuffle(shuffled)
    assert list(class_names(labels).items()) == list(class_names(shuffled).items())


@given(st.lists(NAMES, max_size=6))
def test_classes_that_are_written_and_read_again_stay(labels):
    classes = list(dict.fromkeys(class_names(labels).values()))
    assert list(dict.fromkeys(class_names(classes).values())) == classes


@given(st.lists(CLOSE, max_size=6, unique_by=species_key))
def test_similar_names_are_groups_of_different_species(names):
    groups = similar_names(names)
    flat = [name for group in groups for name in group]
    assert len(flat) == len(set(flat))
    assert all(len(group) > 1 and set(group) <= set(names) for group in groups)
