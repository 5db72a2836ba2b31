"""Kaleidoscope's tables: what a program found, and what a person made of it."""

import pytest

from antpitta.core.types import Annotation
from antpitta.files.formats import read_table

HEADER = "INDIR,FOLDER,IN FILE,CHANNEL,OFFSET,DURATION,Fmin,Fmax,AUTO ID,MANUAL ID\n"


def read_manual(folder, *cells, auto="s1", verdict=None):
    path = folder / "k.csv"
    rows = [f"/d,a,dawn.wav,0,{i},2,100,200,{auto},{cell}\n" for i, cell in enumerate(cells)]
    path.write_text(HEADER + "".join(rows))
    return read_table(path, verdict)


def test_row_is_unknown_until_a_person_has_identified_it(tmp_path):
    table = read_manual(tmp_path, "", "NoID", "?")
    assert (table.format, table.annotations, table.unvalidated) == ("kaleidoscope", (), 3)


@pytest.mark.parametrize(
    ("cell", "auto", "boxes"),
    [
        ("yes", "s1", [("s1", True)]),
        ("no", "s1", [("s1", False)]),
        ("absent", "s1", [("s1", False)]),
        ("S1", "s1", [("s1", True)]),
        ("11", "s11", [("s11", True)]),
        ("Noise", "s1", [("s1", False)]),
        ("s2", "s1", [("s1", False), ("s2", True)]),
        ('"s1, s3"', "s1", [("s1", True), ("s3", True)]),
        ("s2", "", [("s2", True)]),
        ("s2", "NoID", [("s2", True)]),
    ],
)
def test_manual_id_is_a_verdict_or_a_species(tmp_path, cell, auto, boxes):
    table = read_manual(tmp_path, cell, auto=auto)
    assert [(box.label, box.present) for box in table.annotations] == boxes
    assert set(table.rows) == {2}
    assert not table.findings


def test_row_has_path_times_and_frequencies(tmp_path):
    (box,) = read_manual(tmp_path, "yes").annotations
    assert box == Annotation("/d/a/dawn.wav", 0.0, 2.0, "s1", True, 100.0, 200.0)


@pytest.mark.parametrize("verdict", [True, False])
def test_verdict_of_the_user_holds_where_nobody_has_identified_anything(tmp_path, verdict):
    (box,) = read_manual(tmp_path, "", verdict=verdict).annotations
    assert box.present == verdict
    table = read_manual(tmp_path, "", "yes", verdict=verdict)
    assert ([box.present for box in table.annotations], table.unvalidated) == ([True], 1)


def test_columns_may_stand_in_any_order_and_frequencies_of_bats_are_khz(tmp_path):
    path = tmp_path / "id.csv"
    path.write_text(
        "MANUAL ID*,Fmax,Fmin,Fc,AUTO ID*,DURATION,OFFSET,IN FILE,FOLDER\n"
        "MYLU,80,40,45,MYLU,2,1,dawn.wav,a\n"
    )
    (box,) = read_table(path).annotations
    assert box == Annotation("a/dawn.wav", 1.0, 3.0, "MYLU", True, 40_000.0, 80_000.0)


def test_clusters_are_no_species(tmp_path):
    path = tmp_path / "cluster.csv"
    path.write_text("FOLDER,IN FILE,OFFSET,DURATION,TOP1MATCH,MANUAL ID\n,a.wav,1,2,x.01,frog\n")
    assert [(box.label, box.present) for box in read_table(path).annotations] == [("frog", True)]


def test_birdnets_table_with_a_manual_id_gives_verdicts_on_its_species(tmp_path):
    path = tmp_path / "k.csv"
    path.write_text(
        "INDIR,FOLDER,IN FILE,OFFSET,DURATION,scientific_name,common_name,confidence,MANUAL ID\n"
        "/d,a,dawn.wav,0,3,Turdus merula,Blackbird,0.9,Turdus merula\n"
        "/d,a,dawn.wav,3,3,Turdus merula,Blackbird,0.4,no\n"
    )
    boxes = [(box.label, box.present, box.score) for box in read_table(path).annotations]
    assert boxes == [("Turdus merula", True, 0.9), ("Turdus merula", False, 0.4)]
