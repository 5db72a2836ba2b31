import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from antpitta.core.types import EVERY_CLASS, Annotation, Classes, Dataset, Recording
from antpitta.files.audio import UnreadableAudio, probe, read
from antpitta.files.checks import check_dataset
from antpitta.files.dataset import DataSource, OpenedDataset, open_dataset

REAL = Path(__file__).parents[1].parent / "shared" / "data" / "rfcx"


def box(
    recording="a", label="owl", present=True, start=1.0, stop=2.0, low=100.0, high=900.0, **more
):
    return Annotation(recording, start, stop, label, present, low, high, **more)


def opened(*boxes, sites=(None, None), names=("owl",), origins=None):
    recordings = tuple(
        Recording(id, Path(f"{id}.wav"), 8000, 80000, site=site)
        for id, site in zip("ab", sites, strict=True)
    )
    rows = origins or tuple(("t.csv", line) for line in range(2, 2 + len(boxes)))
    data = Dataset(recordings, boxes, Classes(names))
    return OpenedDataset(data, (), 0, len(boxes), {"t.csv": "own"}, rows)


def boxes_told(*boxes, **how):
    """What is said of single rows."""
    return [
        (finding.row, finding.what, finding.serious)
        for finding in check_dataset(opened(*boxes, **how))
        if finding.row is not None
    ]


def species_told(*boxes, **how):
    return [finding.what for finding in check_dataset(opened(*boxes, **how)) if finding.row is None]


def test_a_sound_data_set_has_no_finding():
    good = (box("a"), box("b"), box("a", present=False, start=5, stop=6))
    assert check_dataset(opened(*good, sites=("m", "n"))) == []


def test_a_box_beyond_the_end_weighs_by_how_far():
    told = boxes_told(
        box(start=10.0, stop=10.5),
        box(start=9.0, stop=11.5),
        box(start=9.1, stop=10.5),
        box(start=9.2, stop=10.005),
    )
    assert told == [
        (2, "the box begins at 10 s, a ends at 10.00 s", True),
        (3, "the box ends at 11.5 s, a at 10.00 s", True),
        (4, "the box ends at 10.5 s, a at 10.00 s", False),
    ]


def test_a_box_beyond_nyquist_is_told():
    told = boxes_told(
        box(low=4000, high=5000),
        box(start=3, stop=4, low=100, high=4500),
        box(start=5, stop=6, low=100, high=4000.5),
        box(start=7, stop=8, low=0, high=float("inf")),
    )
    assert told == [
        (2, "the box lies from 4000 Hz up, a holds nothing above 4000 Hz", True),
        (3, "the box reaches 4500 Hz, a holds nothing above 4000 Hz", False),
    ]


def test_present_and_absent_of_one_species_at_one_time_contradict():
    told = boxes_told(
        box(),
        box(present=False, start=1.2, stop=2.1),
        box(present=False, start=1.9, stop=4.0),
        origins=(("tp.csv", 9), ("fp.csv", 4), ("fp.csv", 5)),
    )
    assert told == [
        (4, "owl is absent from 1.2 to 2.1 s of a, and present from 1 to 2 s by tp.csv:9", True),
        (5, "owl is absent from 1.9 to 4 s of a, and present from 1 to 2 s by tp.csv:9", False),
    ]


@pytest.mark.parametrize(
    "other",
    [
        box(present=False, start=2.0, stop=3.0),
        box("b", present=False),
        box(label="bat", present=False),
        box(present=False, low=900, high=1800),
        box(present=False, low=10, high=100),
        box(present=False, songtype="2"),
        box(label=EVERY_CLASS, present=False),
    ],
)
def test_what_speaks_of_another_sound_is_no_contradiction(other):
    assert boxes_told(box(songtype="1"), other, names=("bat", "owl")) == []


def test_the_same_box_twice_is_told_once():
    told = boxes_told(box(), box(score=0.5), box(stop=2.5), box(songtype="2"))
    assert told == [(3, "the same box as t.csv:2", False)]


def test_many_alike_are_counted_and_not_listed():
    told = boxes_told(*(box(start=i, stop=i + 0.5) for i in range(1, 40)))
    assert len(told) == 6
    assert told[-1] == (
        16,
        "25 more rows like this: the box begins at 15 s, a ends at 10.00 s",
        True,
    )


def test_species_that_cannot_be_learnt_or_checked_are_named():
    told = species_told(
        box("a", "bat"),
        box("a", "owl"),
        box("b", "owl"),
        box("a", "crow", present=False),
        sites=("m", "n"),
        names=("bat", "crow", "owl"),
    )
    assert told == [
        "of the boxes whose audio is here, 1 of 3 species have no present box: crow",
        "of the boxes whose audio is here, 2 of 3 species have no absent box: bat, owl",
        "of the boxes whose audio is here, 1 of 3 species have present boxes in one recording"
        " only: bat",
    ]


def test_a_species_of_one_site_is_named_where_there_are_several():
    pair = (box("a"), box("b"), box("a", EVERY_CLASS, present=False, start=5, stop=6))
    cases = [("mm", "nn", 1), ("mm", "mm", 0), ("mn", "nn", 0), ((None, None), "nq", 0)]
    for sites, others, told in cases:
        data = opened(*pair, sites=tuple(sites))
        more = (
            Recording(id, Path(id), 8000, 9, site=of) for id, of in zip("cd", others, strict=True)
        )
        whole = Dataset((*data.dataset.recordings, *more), pair, data.dataset.classes)
        found = check_dataset(OpenedDataset(whole, (), 0, 3, data.tables, data.origins))
        assert len(found) == told
        assert all("at one site only" in finding.what for finding in found)


def test_many_species_are_named_in_part():
    names = tuple(f"s{i}" for i in range(30))
    (told, *_) = species_told(box("a", "s0"), names=names)
    assert "29 of 30 species have no present box: s1, s2" in told
    assert told.endswith("s1, s2, s3, s4, s5, s6, s7, s8, ...")


def sounds_told(tmp_path, name, sound, *, judged=True, keep=1.0, rate=8000):
    """What is said of one file, cut to a share of its bytes after it was probed."""
    path = tmp_path / name
    sf.write(path, sound, rate)
    before = probe(path, "x")
    raw = path.read_bytes()
    path.write_bytes(raw[: int(len(raw) * keep)])
    recording = probe(path, "x") if path.suffix == ".wav" and keep > 0.01 else before
    said = (box("x", stop=1.5), box("x", EVERY_CLASS, False)) if judged else ()
    data = OpenedDataset(
        Dataset((recording,), said, Classes(("owl",))),
        (), 0, len(said), {"t.csv": "own"}, tuple(("t.csv", i) for i in range(len(said))),
    )  # fmt: skip
    found = check_dataset(data, partial(read, sample_rate=16000))
    return [(finding.what, finding.serious) for finding in found if finding.file == str(path)]


NOISE = np.random.default_rng(0).normal(0, 0.05, 8000 * 130)


def test_good_sound_is_not_spoken_of(tmp_path):
    assert sounds_told(tmp_path, "a.wav", NOISE) == []
    assert sounds_told(tmp_path, "a.mp3", NOISE) == []
    assert sounds_told(tmp_path, "short.wav", NOISE[:900]) == []


def test_silence_is_told_and_weighs_where_somebody_judged_it(tmp_path):
    quiet = np.full(8000 * 5, 0.3)
    what = "silent: no second of it has any sound"
    assert sounds_told(tmp_path, "a.wav", quiet) == [(what, True)]
    assert sounds_told(tmp_path, "a.wav", quiet, judged=False) == [(what, False)]


def test_dead_seconds_are_counted(tmp_path):
    holed = NOISE.copy()
    holed[8000 * 70 : 8000 * 100] = 0
    (told,) = sounds_told(tmp_path, "a.wav", holed)
    assert told[0] in {f"{n} s of it are dead (one constant value)" for n in (28, 29, 30)}
    assert not told[1]


def test_clipping_is_told_and_one_bang_is_not(tmp_path):
    wave = np.sin(np.arange(80000) / 20)
    (told,) = sounds_told(tmp_path, "a.wav", np.clip(3 * wave, -1, 1))
    assert told[0].startswith("clipped: 7")
    bang = 0.1 * wave
    bang[400:440] = 1.0
    assert sounds_told(tmp_path, "a.wav", bang) == []


@pytest.mark.parametrize("name", ["a.wav", "a.flac"])
def test_a_file_cut_short_is_told_with_both_lengths(tmp_path, name):
    (told,) = sounds_told(tmp_path, name, NOISE, keep=0.5)
    what, serious = told
    assert what.startswith("cut short: its header promises 130.0 s, it holds 6")
    assert serious


def test_a_file_that_does_not_decode_at_all_is_told(tmp_path):
    assert sounds_told(tmp_path, "a.flac", NOISE, keep=0.001) == [("nothing in it decodes", True)]


def test_a_damaged_minute_is_told(tmp_path):
    path = tmp_path / "a.flac"
    sf.write(path, NOISE, 8000)
    recording = probe(path, "x")

    def broken(recording, start, stop):
        return np.zeros(0) if start == 60 else read(recording, start, stop, 8000)

    def torn(recording, start, stop):
        if start == 60:
            raise UnreadableAudio("lost sync")
        return read(recording, start, stop, 8000)

    data = OpenedDataset(Dataset((recording,), (), Classes(())), (), 0, 0, {}, ())
    assert check_dataset(data, broken) == []
    assert [finding.what for finding in check_dataset(data, torn)] == [
        "damaged: the minute from 60 s on does not decode"
    ]


def test_the_competitions_data_is_examined_in_seconds_and_few_words():
    if not REAL.is_dir():
        pytest.skip(f"no real recordings at {REAL}")
    begin = time.perf_counter()
    data = open_dataset(
        DataSource((REAL / "audio",), (REAL / "train_tp.csv",), (REAL / "train_fp.csv",))
    )
    found = check_dataset(data)
    assert time.perf_counter() - begin < 10
    assert not any(finding.serious for finding in found)
    assert "1198 of 1216 rows" in found[0].what
    assert 3 <= len(found) <= 8
