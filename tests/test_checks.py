"""Findings about boxes, species and sound of a data set."""

import time
from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from antpitta.core.thresholds import NOT_LEARNABLE
from antpitta.core.types import EVERY_CLASS, Annotation, Classes, Dataset, Recording
from antpitta.files.audio import UnreadableAudio, probe, read
from antpitta.files.checks import check_dataset, overlapping_pairs
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


def row_findings(*boxes, **options):
    """The findings about single rows."""
    return [f for f in check_dataset(opened(*boxes, **options)) if f.row is not None]


def summarize(findings):
    return [(finding.code, finding.row, finding.serious) for finding in findings]


def species_findings(*boxes, **options):
    return [f for f in check_dataset(opened(*boxes, **options)) if f.row is None]


def test_data_set_without_problems_has_no_finding():
    good = (box("a"), box("b"), box("a", present=False, start=5, stop=6))
    assert check_dataset(opened(*good, sites=("m", "n"))) == []


def test_box_beyond_the_end_is_serious_from_one_second():
    findings = row_findings(
        box(start=10.0, stop=10.5),
        box(start=9.0, stop=11.5),
        box(start=9.1, stop=10.5),
        box(start=9.2, stop=10.005),
    )
    assert summarize(findings) == [
        ("W_BOX_BEYOND_END", 2, True),
        ("W_BOX_BEYOND_END", 3, True),
        ("W_BOX_BEYOND_END", 4, False),
    ]
    for finding, start in zip(findings, ("10 s", "11.5 s", "10.5 s"), strict=True):
        assert f"{start}, a " in finding.what
        assert "10.00 s" in finding.what


def test_box_above_nyquist_is_reported():
    findings = row_findings(
        box(low=4000, high=5000),
        box(start=3, stop=4, low=100, high=4500),
        box(start=5, stop=6, low=100, high=4000.5),
        box(start=7, stop=8, low=0, high=float("inf")),
    )
    assert summarize(findings) == [
        ("W_BOX_ABOVE_NYQUIST", 2, True),
        ("W_BOX_ABOVE_NYQUIST", 3, False),
    ]
    assert "4500 Hz" in findings[1].what
    assert all("above 4000 Hz" in finding.what for finding in findings)


def test_present_and_absent_of_one_species_at_one_time_contradict():
    findings = row_findings(
        box(),
        box(present=False, start=1.2, stop=2.1),
        box(present=False, start=1.9, stop=4.0),
        origins=(("tp.csv", 9), ("fp.csv", 4), ("fp.csv", 5)),
    )
    assert summarize(findings) == [
        ("W_BOX_CONTRADICTION", 4, True),
        ("W_BOX_CONTRADICTION", 5, False),
    ]
    for finding, times in zip(findings, ("1.2 to 2.1 s of a", "1.9 to 4 s of a"), strict=True):
        assert times in finding.what
        assert finding.what.endswith("1 to 2 s in tp.csv:9")


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
def test_boxes_of_different_sounds_do_not_contradict(other):
    assert row_findings(box(songtype="1"), other, names=("bat", "owl")) == []


def test_same_box_twice_is_reported_once():
    findings = row_findings(box(), box(score=0.5), box(stop=2.5), box(songtype="2"))
    assert summarize(findings) == [("W_BOX_DUPLICATE", 3, False)]
    assert findings[0].what.endswith("t.csv:2")


def test_many_findings_of_one_kind_are_counted():
    findings = row_findings(*(box(start=i, stop=i + 0.5) for i in range(1, 40)))
    assert len(findings) == 6
    assert summarize(findings[-1:]) == [("W_BOX_BEYOND_END", 16, True)]
    assert findings[-1].what.startswith("25 more")


def test_species_without_enough_boxes_are_named():
    findings = species_findings(
        box("a", "bat"),
        box("a", "owl"),
        box("b", "owl"),
        box("a", "crow", present=False),
        sites=("m", "n"),
        names=("bat", "crow", "owl"),
    )
    assert [(finding.code, finding.what.rpartition(": ")[2]) for finding in findings] == [
        ("W_NO_PRESENT_BOX", "crow"),
        ("W_NO_ABSENT_BOX", "bat, owl"),
        ("W_ONE_RECORDING", "bat"),
    ]
    assert [finding.what[:6] for finding in findings] == ["1 of 3", "2 of 3", "1 of 3"]
    assert NOT_LEARNABLE in findings[0].what  # as in the warnings of `train`


def test_species_at_one_site_is_named_where_there_are_several():
    pair = (box("a"), box("b"), box("a", EVERY_CLASS, present=False, start=5, stop=6))
    cases = [("mm", "nn", 1), ("mm", "mm", 0), ("mn", "nn", 0), ((None, None), "nq", 0)]
    for sites, others, count in cases:
        data = opened(*pair, sites=tuple(sites))
        more = (
            Recording(id, Path(id), 8000, 9, site=of) for id, of in zip("cd", others, strict=True)
        )
        whole = Dataset((*data.dataset.recordings, *more), pair, data.dataset.classes)
        findings = check_dataset(OpenedDataset(whole, (), 0, 3, data.tables, data.origins))
        assert [finding.code for finding in findings] == ["W_ONE_SITE"] * count


def test_many_species_are_named_in_part():
    names = tuple(f"s{i}" for i in range(30))
    (finding, *_) = species_findings(box("a", "s0"), names=names)
    assert finding.what.startswith("29 of 30")
    assert finding.what.endswith(": s1, s2, s3, s4, s5, s6, s7, s8 and 21 more")


def sound_findings(tmp_path, name, sound, *, annotated=True, keep=1.0, rate=8000):
    """The findings about one file, cut to a share of its bytes after it was probed."""
    path = tmp_path / name
    sf.write(path, sound, rate)
    before = probe(path, "x")
    raw = path.read_bytes()
    path.write_bytes(raw[: int(len(raw) * keep)])
    recording = probe(path, "x") if path.suffix == ".wav" and keep > 0.01 else before
    boxes = (box("x", stop=1.5), box("x", EVERY_CLASS, False)) if annotated else ()
    data = OpenedDataset(
        Dataset((recording,), boxes, Classes(("owl",))),
        (), 0, len(boxes), {"t.csv": "own"}, tuple(("t.csv", i) for i in range(len(boxes))),
    )  # fmt: skip
    findings = check_dataset(data, partial(read, sample_rate=16000))
    return [finding for finding in findings if finding.file == str(path)]


def codes(findings):
    return [(finding.code, finding.serious) for finding in findings]


NOISE = np.random.default_rng(0).normal(0, 0.05, 8000 * 130)


def test_good_sound_has_no_finding(tmp_path):
    assert sound_findings(tmp_path, "a.wav", NOISE) == []
    assert sound_findings(tmp_path, "a.mp3", NOISE) == []
    assert sound_findings(tmp_path, "short.wav", NOISE[:900]) == []


def test_silence_is_serious_where_there_are_boxes(tmp_path):
    quiet = np.full(8000 * 5, 0.3)
    findings = sound_findings(tmp_path, "a.wav", quiet)
    assert codes(findings) == [("W_AUDIO_SILENT", True)]
    findings = sound_findings(tmp_path, "a.wav", quiet, annotated=False)
    assert codes(findings) == [("W_AUDIO_SILENT", False)]


def test_seconds_of_one_value_are_counted(tmp_path):
    holed = NOISE.copy()
    holed[8000 * 70 : 8000 * 100] = 0
    findings = sound_findings(tmp_path, "a.wav", holed)
    assert codes(findings) == [("W_AUDIO_CONSTANT", False)]
    assert findings[0].what.partition(" s ")[0] in {"28", "29", "30"}


def test_clipping_is_reported_and_one_bang_is_not(tmp_path):
    wave = np.sin(np.arange(80000) / 20)
    findings = sound_findings(tmp_path, "a.wav", np.clip(3 * wave, -1, 1))
    assert codes(findings) == [("W_AUDIO_CLIPPED", False)]
    assert " 7" in findings[0].what
    bang = 0.1 * wave
    bang[400:440] = 1.0
    assert sound_findings(tmp_path, "a.wav", bang) == []


@pytest.mark.parametrize("name", ["a.wav", "a.flac"])
def test_file_that_is_cut_short_is_reported_with_both_lengths(tmp_path, name):
    findings = sound_findings(tmp_path, name, NOISE, keep=0.5)
    assert codes(findings) == [("W_AUDIO_CUT_SHORT", True)]
    assert "130.0 s, it has 6" in findings[0].what


def test_file_that_does_not_decode_is_reported(tmp_path):
    findings = sound_findings(tmp_path, "a.flac", NOISE, keep=0.001)
    assert codes(findings) == [("W_AUDIO_DAMAGED", True)]


def test_damaged_minute_is_reported(tmp_path):
    path = tmp_path / "a.flac"
    sf.write(path, NOISE, 8000)
    recording = probe(path, "x")

    def empty_minute(recording, start, stop):
        return np.zeros(0) if start == 60 else read(recording, start, stop, 8000)

    def damaged_minute(recording, start, stop):
        if start == 60:
            raise UnreadableAudio("lost sync")
        return read(recording, start, stop, 8000)

    data = OpenedDataset(Dataset((recording,), (), Classes(())), (), 0, 0, {}, ())
    assert check_dataset(data, empty_minute) == []
    findings = check_dataset(data, damaged_minute)
    assert codes(findings) == [("W_AUDIO_DAMAGED", False)]
    assert "60 s" in findings[0].what


@pytest.mark.parametrize(
    ("channels", "words"),
    [
        ((1, -1), ["channel 2 has the opposite polarity"]),
        ((1, 0), ["channel 2 is silent"]),
        ((1, 1, 0), ["channel 3 is silent"]),
        ((1, 60), ["channel 2 is clipped"]),
        ((1, 0.5), []),
    ],
)
def test_channels_are_examined_before_they_are_mixed(tmp_path, channels, words):
    wave = np.clip(NOISE[:80000, None] * np.array(channels), -1, 1)
    findings = [f for f in sound_findings(tmp_path, "a.wav", wave) if f.code != "W_AUDIO_CLIPPED"]
    assert codes(findings) == [("W_AUDIO_CHANNELS", False)] * len(words)
    assert all(f.what.startswith(word) for f, word in zip(findings, words, strict=True))


def header_findings(path, recording):
    data = OpenedDataset(Dataset((recording,), (), Classes(())), (), 0, 0, {}, ())
    return check_dataset(data, lambda r, start, stop: read(r, start, stop, 8000))


def test_header_that_promises_too_little_or_too_much_is_reported_with_both_lengths(tmp_path):
    path = tmp_path / "a.wav"
    sf.write(path, NOISE[:80000], 8000)
    raw = bytearray(path.read_bytes())
    raw[40:44] = (40000).to_bytes(4, "little")
    path.write_bytes(raw)
    findings = header_findings(path, probe(path, "a"))
    assert codes(findings) == [("W_AUDIO_HEADER", False)]
    assert "2.5 s" in findings[0].what
    assert "10.0 s" in findings[0].what
    path = tmp_path / "b.flac"
    sf.write(path, NOISE[:80000], 8000)
    raw = bytearray(path.read_bytes())
    raw[22:26] = (160000).to_bytes(4, "big")
    path.write_bytes(raw)
    findings = header_findings(path, probe(path, "b"))
    assert codes(findings) == [("W_AUDIO_CUT_SHORT", False)]
    assert "20.0 s, it has 10.0 s" in findings[0].what


def test_recorder_whose_name_and_comment_disagree_or_that_was_triggered_is_reported(tmp_path):
    path = tmp_path / "x_20240501_050000.flac"
    sf.write(path, NOISE[:8000], 8000)
    with sf.SoundFile(path, "w", 8000, 1) as file:
        file.comment = "Recorded at 09:30:00 01/05/2024 (UTC) by AudioMoth 24F319055FDF2F5B"
        file.write(NOISE[:8000])
    assert codes(header_findings(path, probe(path, "a"))) == [("W_RECORDER_CLOCK", False)]
    path = tmp_path / "20240501_050000T.wav"
    sf.write(path, NOISE[:8000], 8000)
    assert codes(header_findings(path, probe(path, "a"))) == [("W_RECORDER_TRIGGERED", False)]


def test_data_of_the_competition_is_checked_in_seconds_with_few_findings():
    if not REAL.is_dir():
        pytest.skip(f"no real recordings at {REAL}")
    begin = time.perf_counter()
    data = open_dataset(
        DataSource((REAL / "audio",), (REAL / "train_tp.csv",), (REAL / "train_fp.csv",))
    )
    findings = check_dataset(data)
    assert time.perf_counter() - begin < 10
    assert not any(finding.serious for finding in findings)
    assert "1198 of 1216 rows" in findings[0].what
    assert 3 <= len(findings) <= 8


def test_boxes_that_all_overlap_are_checked_in_seconds(tmp_path):
    recording = Recording("dawn", tmp_path / "dawn.wav", 8000, 8000 * 60)
    boxes = tuple(Annotation("dawn", 1.0, 50.0, "frog", present=bool(i % 2)) for i in range(20_000))
    opened = OpenedDataset(
        Dataset((recording,), boxes, Classes(("frog",))),
        (), 0, len(boxes), {"t.csv": "antpitta"},
        tuple(("t.csv", i) for i in range(2, len(boxes) + 2)),
    )  # fmt: skip
    begin = time.process_time()
    findings = check_dataset(opened)
    assert time.process_time() - begin < 10
    counts = Counter(finding.code for finding in findings)
    assert counts["W_BOX_CONTRADICTION"] == counts["W_BOX_DUPLICATE"] == 6
    assert "at least 9995 more rows like this" in " ".join(finding.what for finding in findings)


def test_contradiction_behind_thousands_of_boxes_in_another_band_is_found():
    others = [box(present=False, start=1 + i / 1e5, stop=9, low=950, high=999) for i in range(9000)]
    good = box(start=2.0, stop=8.0)
    findings = row_findings(good, *others, box(present=False, start=2.1, stop=8.1))
    found = [f for f in findings if f.code == "W_BOX_CONTRADICTION"]
    assert [(f.row, f.serious) for f in found] == [(9003, True)]


def test_contradictions_are_the_same_as_those_of_all_pairs():
    rng = np.random.default_rng(0)
    starts, lows = rng.uniform(0, 60, 600), rng.uniform(0, 3000, 600)
    edges = np.array([starts, starts + rng.uniform(0.1, 5, 600), lows, lows + 300])
    edges[3, ::9] = np.inf
    for share in (0.0, 0.5):
        boxes, others = edges[:, :300], edges[:, 300:]
        start, stop = (np.maximum, np.minimum)
        both = stop.outer(boxes[1], others[1]) - start.outer(boxes[0], others[0])
        either = start.outer(boxes[1], others[1]) - stop.outer(boxes[0], others[0])
        band = stop.outer(boxes[3], others[3]) > start.outer(boxes[2], others[2])
        every = (both > 0) & (both >= share * either) & band
        found = list(overlapping_pairs(boxes, others, share))
        assert all(every[pair] for pair in found)
        assert len(set(found)) == len(found) > 100
        counts = Counter(i for i, _ in found)
        assert all(counts[i] >= min(5, n) for i, n in enumerate(every.sum(axis=1)))


@pytest.mark.parametrize(
    ("present", "absent", "count"),
    [("", "", 1), ("a", "a", 1), ("a", "b", 0), ("", "b", 1), ("a", "", 1)],
)
def test_song_types_that_differ_do_not_contradict(present, absent, count):
    boxes = (box(songtype=present), box(present=False, songtype=absent))
    assert [f.code for f in row_findings(*boxes)] == ["W_BOX_CONTRADICTION"] * count
