"""antpitta's own table, hoplite's, and the registry of formats."""

import math

import numpy as np
import pytest

from antpitta.core.errors import UserError
from antpitta.core.types import Annotation
from antpitta.files.formats import FORMATS, read_table, write_table
from antpitta.files.formats.sheet import AnnotationTable

HEADER = "recording,start_time,end_time,low_freq,high_freq,species,verdict,songtype,score,source\n"


def own(folder, text):
    path = folder / "said.csv"
    path.write_text(text)
    return path


def test_every_field_survives_the_way_there_and_back(tmp_path):
    rng = np.random.default_rng(2)
    said = [
        Annotation(
            f"site/rec {i}.wav",
            float(start),
            float(start + rng.exponential()),
            label=["Grallaria nana", '"odd", name', "3", "ñ\té"][i % 4].replace("\t", " "),
            present=bool(rng.random() < 0.5),
            low=float(rng.uniform(0, 1000)),
            high=math.inf if i % 3 else float(rng.uniform(2000, 1e5)),
            source="human" if i % 2 else "review:ann",
            songtype="song" if i % 5 else "",
            score=None if i % 4 == 0 else float(rng.random()),
        )
        for i, start in enumerate(rng.uniform(0, 9000, 300))
    ]
    said.append(Annotation("quiet", 0.0, math.inf, "*", present=False))
    path = tmp_path / "deep" / "said.csv"
    write_table(said, path, "antpitta")
    read = read_table(path)
    assert read.annotations == tuple(said)
    assert read.format == "antpitta"
    assert path.read_text().startswith(HEADER)


def test_unjudged_rows_are_counted_and_unknown_words_reported(tmp_path):
    rows = ["Present", "absent", "", "uncertain", "perhaps", "not present"]
    text = HEADER + "".join(f"a,0,1,,,x,{word},,,\n" for word in rows)
    read = read_table(own(tmp_path, text))
    assert [said.present for said in read.annotations] == [True, False, False]
    assert read.rows == (2, 3, 7)
    assert read.unvalidated == 2
    (found,) = read.findings
    assert (found.row, found.what, found.serious) == (6, "unknown verdict 'perhaps'", True)


def test_a_bad_row_that_nobody_judged_is_only_unjudged(tmp_path):
    read = read_table(own(tmp_path, HEADER + "a,9,1,,,x,,,,\n"))
    assert (read.annotations, read.findings, read.unvalidated) == ((), (), 1)


def test_the_rows_word_wins_over_the_users_and_is_reported(tmp_path):
    text = HEADER + "a,0,1,,,x,absent,,,\na,0,1,,,y,present,,,\n"
    read = read_table(own(tmp_path, text), verdict=True)
    assert [said.present for said in read.annotations] == [False, True]
    assert "1 of its rows say absent" in read.findings[0].what
    assert not read.findings[0].serious


def test_every_species_cannot_be_present_at_once(tmp_path):
    read = read_table(own(tmp_path, HEADER + "a,0,1,,,*,present,,,\n"))
    assert not read.annotations
    assert "every species present" in read.findings[0].what


def test_a_models_events_are_no_annotations(tmp_path):
    header = "file,start_time,end_time,low_freq,high_freq,species,score,model\n"
    with pytest.raises(UserError, match="a model's events"):
        read_table(own(tmp_path, header + "a.wav,0,1,0,9,x,0.9,m\n"))


def test_hoplite_uncertain_is_unknown(tmp_path):
    path = tmp_path / "hoplite_annotations.csv"
    path.write_text(
        "recording,label,start_offset_s,end_offset_s,label_type\n"
        "DEP01/a.wav,bird,0.5,1.5,positive\n"
        "DEP01/a.wav,frog,2.0,3.0,negative\n"
        "DEP02/a.wav,frog,2.0,3.0,uncertain\n"
    )
    read = read_table(path)
    expected = (
        Annotation("DEP01/a.wav", 0.5, 1.5, "bird"),
        Annotation("DEP01/a.wav", 2.0, 3.0, "frog", present=False),
    )
    assert (read.format, read.annotations, read.unvalidated) == ("hoplite", expected, 1)
    write_table(read.annotations, tmp_path / "again.csv", "hoplite")
    assert read_table(tmp_path / "again.csv").annotations == expected


def test_hoplite_keeps_random_times_exactly(tmp_path):
    rng = np.random.default_rng(11)
    said = tuple(
        Annotation("r.wav", float(s), float(s + 5), f"sp{i % 7}", bool(i % 2))
        for i, s in enumerate(rng.uniform(0, 86400, 200))
    )
    write_table(said, tmp_path / "a.csv", "hoplite")
    assert read_table(tmp_path / "a.csv").annotations == said


def test_a_folder_of_tables_is_read_as_one_and_strangers_are_reported(tmp_path):
    own(tmp_path, HEADER + "a,0,1,,,x,present,,,\n")
    (tmp_path / "b.txt").write_text("1.0\t2.0\tfrog\n")
    (tmp_path / "readme.txt").write_text("no table at all\n")
    (tmp_path / ".hidden.txt").write_text("1.0\t2.0\tfrog\n")
    read = read_table(tmp_path)
    assert {said.recording for said in read.annotations} == {"a", "b"}
    assert set(read.format.split("+")) == {"antpitta", "audacity"}
    (found,) = read.findings
    assert found.file.endswith("readme.txt")


def test_what_is_not_there_or_holds_no_table_is_the_users_mistake(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        read_table(tmp_path / "nowhere.csv")
    with pytest.raises(UserError, match="no annotation table in this folder"):
        read_table(tmp_path)
    (tmp_path / "bad.zip").write_bytes(b"PK no zip")
    with pytest.raises(UserError, match="cannot be unpacked"):
        read_table(tmp_path / "bad.zip")


def test_an_unknown_format_is_refused_with_the_known_ones(tmp_path):
    with pytest.raises(UserError, match="give one of antpitta, rfcx"):
        write_table([], tmp_path / "x.csv", "excel")
    assert set(FORMATS) >= {"antpitta", "rfcx", "arbimon", "raven", "audacity", "birdnet"}


def test_a_table_has_a_row_for_each_annotation(tmp_path):
    with pytest.raises(ValueError, match="1 rows for 0 annotations"):
        AnnotationTable("antpitta", tmp_path, (), (2,))
