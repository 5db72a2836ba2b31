"""What antpitta writes reads back: any names, any boxes, in every format.

Read as they are, tables of events are unreviewed. With the verdict of a person in each row they are
verdicts on the same recordings, of the same classes.
"""

import csv
import io
import shutil
import tempfile
from contextlib import contextmanager
from datetime import UTC
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from antpitta.core.identity import class_names, recording_key, species_key
from antpitta.core.types import Recording
from antpitta.files.dataset import match_tables
from antpitta.files.deployments import Deployment, Deployments
from antpitta.files.formats import read_table
from antpitta.files.recordings import FoundRecordings, ListedFile, short_names
from antpitta.files.tables import read_frame, read_prevalence, write_prevalence
from antpitta.predict.camtrapdp import NAME, write_package
from antpitta.predict.exports import FORMATS, write_events
from antpitta.predict.journal import Journal, JournalEntry
from antpitta.predict.tables import Archive, write_presence

HOME = Path("/data")
ODD = (
    *("NA", "null", "None", "-", "nan", "=1+1", "@x", "+1", "'a", '"q"', 'a "b" c', "a,b", "a;b"),
    *("007", "7", "s7", "1.5", "yes", "no", "present", "0.95", "a 0.95", "x;0.5", "x;0.5;yes"),
    *(
        "[red]",
        "%",
        "#",
        "sep=;",
        "Genus species, Name",
        "a|b",
        "a_b",
        "frog.1",
        "frog:",
        "(",
        ":",
        "\x1b[1m",
    ),
    *(
        "\U0001f438",
        "zo\u0308e",
        "ZO\u00cb",
        "\ufeffa",
        "a.wav",
        "file",
        "species",
        "recording",
        "recording_id",
        "source",
    ),
    *("dawn_raven", "dawn.Table.1", "dawn"),
)
# A backslash in the name of a file is the end of a folder's name: tables come from Windows, too.
LETTERS = st.characters(exclude_categories=("Cs",), exclude_characters="/\\\0")
SPECIES = st.one_of(st.sampled_from(ODD), st.text(LETTERS, min_size=1, max_size=8))
STEMS = st.one_of(
    st.sampled_from([*ODD, "a\nb", "a\rb", "a\tb", "S4A_20240501_050000"]),
    st.text(LETTERS, min_size=1, max_size=8),
)
TIMES = st.integers(0, 59_000).map(lambda milliseconds: milliseconds / 1000)
SCORES = st.integers(1, 999).map(lambda share: share / 1000)


@contextmanager
def new_folder():
    """An empty folder for one example; pytest's tmp_path is that of all examples."""
    folder = Path(tempfile.mkdtemp())
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


@st.composite
def archives(draw):
    """Recordings with events, as (ListedFile, JournalEntry) pairs; the species are class names."""
    stems = draw(st.lists(STEMS, min_size=1, max_size=3, unique_by=recording_key))
    # hidden files are no recordings
    stems = [stem for stem in stems if recording_key(stem) and stem[0] != "."] or ["a"]
    paths = [HOME / f"site{i % 2}" / f"{stem}.wav" for i, stem in enumerate(stems)]
    if draw(st.booleans()):  # the same name at another site
        paths.append(HOME / f"site{len(stems) % 2}b" / paths[0].name)
    ids = short_names([[path.stem, f"{path.parent.name}/{path.stem}"] for path in paths])
    labels = draw(st.lists(SPECIES, min_size=1, max_size=3))
    names = [name for name in class_names(labels).values() if name not in ("", "*")] or ["frog"]
    pairs = []
    for id, path in zip(ids, paths, strict=True):
        # A model finds a species once at a time.
        drawn = [draw(events_of(names)) for _ in range(draw(st.integers(0, 2)))]
        events = {(event[0], event[1], event[4]): event for event in drawn}.values()
        entry = JournalEntry(
            path, (1, 1), duration=60.0, site=path.parent.name, events=tuple(events)
        )
        pairs.append((ListedFile(id, path), entry))
    return sorted(pairs, key=lambda pair: pair[0].id)


@st.composite
def events_of(draw, names):
    start = draw(TIMES)
    stop = round(start + draw(st.integers(1, 900)) / 1000, 3)
    low = draw(st.integers(0, 4000)) / 4
    high = low + draw(st.integers(1, 40_000)) / 4
    return start, stop, low, high, draw(st.sampled_from(names)), draw(SCORES), "model"


def write(archive, folder):
    write_events(lambda: iter([archive]), folder, FORMATS, HOME)


def recordings_of(archive):
    return tuple(
        Recording(file.id, file.path, 48_000, 60 * 48_000, site=entry.site)
        for file, entry in archive
    )


def boxes_of(archive, verdict):
    boxes = [
        (file.id, *event[:4], species_key(event[4]), verdict)
        for file, entry in archive
        for event in entry.events
    ]
    return sorted(boxes)


def boxes_read(table, archive):
    """The annotations of a table, on the recordings of the archive."""
    opened = match_tables(FoundRecordings(recordings_of(archive), ()), [table])
    assert [str(finding) for finding in opened.findings if finding.serious] == []
    return sorted(
        (
            a.recording,
            round(a.start, 3),
            round(a.stop, 3),
            a.low,
            a.high,
            species_key(a.label),
            a.present,
        )
        for a in opened.dataset.annotations
    )


def count_events(archive):
    return sum(len(entry.events) for _, entry in archive)


def fill_in(path, word):
    """A person writes this verdict into every row."""
    if path.name == "raven":
        for table in path.rglob("*.txt"):
            fill_in(table, word)
        return
    if path.is_dir():
        for track in path.rglob("*.txt"):
            lines = track.read_text(encoding="utf-8").split("\n")
            lines = [f"{line};{word}" if line and line[0] != "\\" else line for line in lines]
            track.write_text("\n".join(lines), encoding="utf-8")
        return
    separator = "\t" if path.suffix == ".txt" else ","
    frame = pd.read_csv(path, sep=separator, dtype=str, keep_default_na=False)
    column = next(name for name in frame if name.lower() in ("verdict", "manual id"))
    frame[column] = word
    # pandas quotes no carriage return by itself
    frame.to_csv(path, sep=separator, index=False, quoting=csv.QUOTE_ALL)


TABLES = ("events.csv", "events.raven.txt", "events.kaleidoscope.csv", "audacity", "raven")


@pytest.mark.parametrize("name", TABLES)
@settings(max_examples=15)
@given(archives().filter(count_events))
def test_events_read_back_as_unreviewed(name, archive):
    with new_folder() as folder:
        write(archive, folder)
        table = read_table(folder / name)
        assert table.annotations == ()
        assert table.unvalidated == count_events(archive)
        assert [finding for finding in table.findings if finding.serious] == []


@pytest.mark.parametrize("name", TABLES)
@settings(max_examples=15)
@given(archives().filter(count_events), st.sampled_from([("yes", True), ("absent", False)]))
def test_events_with_verdicts_read_back_as_verdicts_of_the_same_classes(name, archive, verdict):
    word, present = verdict
    with new_folder() as folder:
        write(archive, folder)
        fill_in(folder / name, word)
        table = read_table(folder / name)
        assert boxes_read(table, archive) == boxes_of(archive, present)
        assert table.unvalidated == 0


@pytest.mark.parametrize("name", TABLES)
@settings(max_examples=15)
@given(archives().filter(count_events))
def test_verdict_for_the_whole_table_holds_for_every_event(name, archive):
    with new_folder() as folder:
        write(archive, folder)
        assert boxes_read(read_table(folder / name, True), archive) == boxes_of(archive, True)


@settings(max_examples=15)
@given(archives())
def test_parquet_and_csv_hold_the_same_cells(archive):
    with new_folder() as folder:
        write(archive, folder)
        parquet = pd.read_parquet(folder / "events.parquet")
        table = pd.read_csv(folder / "events.csv", dtype=str, keep_default_na=False)
        rows = [(entry, event) for _, entry in archive for event in entry.events]
        assert list(parquet.columns) == list(table.columns)
        for column in parquet.select_dtypes("number"):
            assert (
                parquet[column].tolist() == table[column].replace("", "nan").astype(float).tolist()
            )
        for column, cells in (
            ("file", [str(entry.path) for entry, _ in rows]),
            ("species", [event[4] for _, event in rows]),
            ("score", [event[5] for _, event in rows]),
        ):
            assert parquet[column].tolist() == cells
            assert table[column].tolist() == list(map(str, cells))


@settings(max_examples=15)
@given(archives(), st.data())
def test_presence_has_the_ids_and_species_as_they_are(archive, data):
    labels = data.draw(st.lists(SPECIES, min_size=1, max_size=4))
    names = tuple(dict.fromkeys(n for n in class_names(labels).values() if n)) or ("frog",)
    rng = np.random.default_rng(0)
    with new_folder() as folder:
        with Journal(folder, {}, resume=False) as journal:
            for _, entry in archive:
                scores = rng.random(len(names), dtype=np.float32)
                journal.add(JournalEntry(entry.path, (1, 1), presence=scores))
            files = [file for file, _ in archive]
            write_presence(Archive(journal, files, (), names), folder / "presence.csv", None)
        table = pd.read_csv(
            folder / "presence.csv", dtype={"recording_id": str}, keep_default_na=False
        )
        assert table["recording_id"].tolist() == [file.id for file in files]
        assert tuple(table.columns) == ("recording_id", *names)
        own = read_frame(folder / "presence.csv")
        assert own.shape == (len(files), 1 + len(names))
        np.testing.assert_array_equal(
            own.to_numpy()[:, 1:].astype(float), table.to_numpy()[:, 1:].astype(float)
        )


@settings(max_examples=15)
@given(st.lists(SPECIES, min_size=1, max_size=5), st.data())
def test_prevalences_read_back(labels, data):
    names = tuple(dict.fromkeys(n for n in class_names(labels).values() if n)) or ("frog",)
    share = st.integers(0, 10**6).map(lambda n: n / 10**6)
    values = np.array([data.draw(share) for _ in names])
    with new_folder() as folder:
        write_prevalence(names, values, folder / "p.csv")
        np.testing.assert_array_equal(read_prevalence(folder / "p.csv", names), values)


@settings(max_examples=15)
@given(archives().filter(count_events))
def test_camtrap_dp_holds_every_event_with_its_species(archive):
    sites = {entry.site: Deployment(entry.site, 1.0, 2.0, UTC) for _, entry in archive}
    dated = [(f, JournalEntry(e.path, e.stamp, "", e.duration, e.site, "2024-05-01T05:00:00",
                              None, e.events)) for f, e in archive]  # fmt: skip
    with new_folder() as folder:
        write_package(lambda: iter([dated]), folder, Deployments(sites, HOME))
        observations, media = (
            pd.read_csv(folder / NAME / f"{name}.csv", dtype=str, keep_default_na=False)
            for name in ("observations", "media")
        )
        species = [event[4] for _, entry in archive for event in entry.events]
        assert observations["scientificName"].tolist() == species
        assert observations["observationID"].is_unique
        assert set(observations["mediaID"]) <= set(media["mediaID"])
        assert media["fileName"].tolist() == [file.path.name for file, _ in archive]


# ---- what a reader does not depend on


CELLS = st.one_of(st.sampled_from(ODD), st.text("ab ,;\t\"'\u00e9", max_size=6)).map(str.strip)
LAYOUTS = {
    "antpitta": ("recording", "start_time", "end_time", "low_freq", "high_freq", "species",
                 "verdict"),
    "rfcx": ("recording_id", "t_min", "t_max", "f_min", "f_max", "species_id", "verdict"),
    "kaleidoscope": ("IN FILE", "OFFSET", "DURATION", "Fmin", "Fmax", "AUTO ID", "MANUAL ID"),
    "raven": ("Begin File", "Begin Time (s)", "End Time (s)", "Low Freq (Hz)", "High Freq (Hz)",
              "Species", "Verdict"),
    "hoplite": ("recording", "start_offset_s", "end_offset_s", "a", "b", "label", "label_type"),
}  # fmt: skip


@st.composite
def tables(draw):
    """The format and rows of a table, with the cells of some rows wrong."""
    number = st.one_of(st.integers(0, 99).map(str), st.sampled_from(["1.5", "", "x", "-1", "inf"]))
    words = st.sampled_from(["present", "absent", "yes", "no", "", "unknown", "positive", "?"])
    row = st.tuples(CELLS, number, number, number, number, CELLS, words)
    rows = draw(st.lists(row.filter(any), max_size=4))
    return draw(st.sampled_from(sorted(LAYOUTS))), rows


def csv_text(header, rows, separator=",", end="\n"):
    buffer = io.StringIO()
    frame = pd.DataFrame(rows, columns=list(header), dtype=str)
    frame.to_csv(buffer, sep=separator, index=False, lineterminator=end, quoting=1)
    return buffer.getvalue()


def outcome(text, folder, encoding="utf-8"):
    """The annotations and the findings of a table, without their lines."""
    path = folder / "t.csv"
    path.write_bytes(text.encode(encoding))
    table = read_table(path)
    found = sorted((f.code, f.what, f.serious) for f in table.findings)
    return table.format, table.annotations, found, table.unvalidated


@settings(max_examples=25)
@given(tables(), st.randoms(use_true_random=False))
def test_order_of_columns_changes_nothing(drawn, random):
    layout, rows = drawn
    order = list(range(7))
    random.shuffle(order)
    with new_folder() as folder:
        plain = outcome(csv_text(LAYOUTS[layout], rows), folder)
        header = [LAYOUTS[layout][i] for i in order]
        other = outcome(csv_text(header, [[row[i] for i in order] for row in rows]), folder)
        assert plain == other


@settings(max_examples=25)
@given(tables(), st.sampled_from(["\r\n", "\r"]), st.sampled_from(",;"))
@example(("rfcx", [("a", "1", "2", "", "", "b", "yes")]), "\r", ";")
def test_line_ends_separators_and_encodings_change_nothing(drawn, end, separator):
    layout, rows = drawn
    with new_folder() as folder:
        plain = outcome(csv_text(LAYOUTS[layout], rows), folder)
        text = csv_text(LAYOUTS[layout], rows, separator, end)
        for encoding in ("utf-8", "utf-8-sig", "utf-16"):
            assert outcome(text, folder, encoding) == plain


@settings(max_examples=25)
@given(tables(), st.data())
def test_blank_lines_change_nothing(drawn, data):
    layout, rows = drawn
    with new_folder() as folder:
        lines = csv_text(LAYOUTS[layout], rows).split("\n")
        blank = data.draw(st.lists(st.integers(0, len(lines)), max_size=3))
        plain = outcome("\n".join(lines), folder)
        for at in sorted(blank, reverse=True):
            lines.insert(
                at, data.draw(st.sampled_from(["", " ", ",,,,,,", '"","","","","","",""']))
            )
        assert outcome("\n".join(lines), folder) == plain


def test_tracks_of_recordings_with_names_like_those_of_tables_stay_theirs(tmp_path):
    stems = ("dawn", "dawn_raven", "dawn.Table.1", "dawn_labels", "dawn.selections", "DAWN_birdnet")
    archive = []
    for i, stem in enumerate(stems):
        event = (float(i), i + 0.5, 100.0, 900.0, "frog", 0.5, "m")
        path = HOME / "site" / f"{stem}.wav"
        archive.append(
            (ListedFile(stem, path), JournalEntry(path, (1, 1), "", 60.0, events=(event,)))
        )
    write(archive, tmp_path)
    table = read_table(tmp_path / "audacity", True)
    assert boxes_read(table, archive) == boxes_of(archive, True)
