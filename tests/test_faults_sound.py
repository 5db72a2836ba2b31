"""One bad file never stops a run: odd sound through predict, check and train."""

import os
import struct

import numpy as np
import pandas as pd
import pytest
import soundfile as sf

import antpitta as ap
from antpitta import api
from antpitta.core.errors import UserError
from antpitta.files.audio import probe, read
from antpitta.files.audio_gaps import find_gaps
from antpitta.files.cache import cached_features
from antpitta.files.dataset import dataset_digest
from antpitta.files.lost_boxes import leave_out_lost_boxes
from antpitta.files.recordings import find_recordings

RATE = 16_000
SOUND = np.random.default_rng(0).normal(0, 0.05, RATE * 3).astype(np.float32)


def put(path, sound=SOUND, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    encoded = os.fsencode(path)
    sf.write(encoded, sound, RATE, format=path.suffix[1:].upper(), **options)
    return path


def add_guano(path, text):
    content = f"GUANO|Version: 1.0\nTimestamp: {text}".encode()
    content += b"\n" * (len(content) % 2)
    raw = path.read_bytes() + b"guan" + struct.pack("<I", len(content)) + content
    path.write_bytes(raw[:4] + struct.pack("<I", len(raw) - 8) + raw[8:])


def make_odd_files(home):
    """Odd files; returns the names of those that have no sound at all."""
    put(home / "good_20240501_050000.wav")
    for name, text in (
        ("zone", "2024-05-01T05:00:00+25:00"),
        ("late", "9999-12-31T23:59:59"),
        ("odd", "\x00\udcff".encode("utf-8", "surrogateescape").decode("latin-1")),
    ):
        add_guano(put(home / f"guano_{name}.wav"), text)
    put(home / (b"caf\xe9_20240501_050000.wav".decode("utf-8", "surrogateescape")))
    put(home / ("n" * 231 + "_20240501_050000.wav"))
    put(home / "[red]_20240501_050000.wav")
    far = put(home / "far.wav")
    os.utime(far, ns=(0, 10_413_792_000 * 10**9))  # the year 2300
    mp3 = put(home / "negative.mp3")
    raw = bytearray(mp3.read_bytes())
    raw[-len(raw) // 2 :] = np.random.default_rng(1).bytes(len(raw) - len(raw) // 2)
    mp3.write_bytes(raw)
    flac = put(home / "header_only.flac")
    raw = flac.read_bytes()
    flac.write_bytes(raw[:86] + bytes(len(raw) - 86))
    damaged = put(home / "damaged.flac")
    raw = bytearray(damaged.read_bytes())
    raw[len(raw) // 2 : len(raw) // 2 + 300] = bytes(300)
    damaged.write_bytes(raw)
    (home / "empty.wav").write_bytes(b"")
    (home / "text.ogg").write_text("no sound")
    os.mkfifo(home / "pipe.wav")
    return {"header_only.flac", "empty.wav", "text.ogg", "pipe.wav"}


def test_prediction_of_odd_files_scores_what_has_sound_and_lists_the_rest(run, tmp_path):
    unreadable = make_odd_files(tmp_path / "odd")
    formats = ("csv", "parquet", "raven", "audacity", "kaleidoscope")
    for resume in (False, True):
        out = tmp_path / "out"
        api.predict_to(run.model, [tmp_path / "odd"], out, formats=formats, resume=resume)
        presence = pd.read_csv(out / "presence.csv", dtype={"recording_id": str})
        quarantine = pd.read_csv(out / "quarantine.csv", dtype=str)
        names = {path.rpartition("/")[2] for path in quarantine["file"]}
        assert len(presence) == 10
        assert "caf\\xe9_20240501_050000" in set(presence["recording_id"])
        assert unreadable <= names
        assert names <= unreadable | {"damaged.flac", "negative.mp3"}
        scores = presence.drop(columns="recording_id").to_numpy()
        assert np.isfinite(scores).all()


def test_check_of_odd_files_reports_each(simulated, tmp_path):
    unreadable = make_odd_files(tmp_path / "odd")
    table = tmp_path / "boxes.csv"
    table.write_text("recording,start_time,end_time,species,verdict\n"
                     "good_20240501_050000,0,0.5,WOTH,present\n")  # fmt: skip
    data = ap.open_data(audio=tmp_path / "odd", annotations=table)
    findings = ap.check(data).findings
    by_code = {}
    for finding in findings:
        str(finding).encode()
        by_code.setdefault(finding.code, set()).add(finding.file.rpartition("/")[2])
    assert by_code["W_AUDIO_UNREADABLE"] == unreadable
    assert by_code["W_RECORDER_CLOCK"] == {"guano_zone.wav", "guano_late.wav", "guano_odd.wav"}


def test_training_on_odd_files_goes_on(recipe, tmp_path):
    home = tmp_path / "odd"
    make_odd_files(home)
    rows = ["recording,start_time,end_time,species,verdict"]
    for i in range(4):
        put(home / f"more{i}_20240501_050000.wav")
        rows.append(f"more{i}_20240501_050000,0,0.5,WOTH,{'present' if i % 2 else 'absent'}")
    rows += ["damaged,0,0.5,WOTH,present", "negative,2,2.5,WOTH,present"]
    (tmp_path / "boxes.csv").write_text("\n".join(rows) + "\n")
    data = ap.open_data(audio=home, annotations=tmp_path / "boxes.csv")
    result = ap.train(data, recipe=str(recipe), out=tmp_path / "run", export=False)
    assert (result.model / "bundle.json").is_file()


@pytest.mark.parametrize("year", [9999, 2300, 1904, 1])
def test_year_of_no_recorder_in_the_table_of_sites_is_a_finding(tmp_path, year):
    put(tmp_path / "odd" / "a.wav")
    (tmp_path / "sites.csv").write_text(f"recording,recorded_at\na,{year:04}-12-31T23:59:59\n")
    result = find_recordings([tmp_path / "odd"], tmp_path / "sites.csv")
    assert [finding.code for finding in result.findings] == ["W_SITE_TABLE"]
    assert result.recordings[0].recorded_at is None


@pytest.mark.parametrize("channels", [2, 4])
def test_channels_of_opposite_polarity_do_not_cancel(run, tmp_path, channels):
    signs = np.where(np.arange(channels) % 2, -1, 1)
    put(tmp_path / "a" / "x.wav", SOUND[:, None] * signs)
    put(tmp_path / "b" / "x.wav")
    tables = []
    for name in "ab":
        api.predict_to(run.model, [tmp_path / name], tmp_path / f"out{name}")
        tables.append(pd.read_csv(tmp_path / f"out{name}" / "presence.csv").iloc[0, 1:])
    np.testing.assert_allclose(*(table.to_numpy(float) for table in tables), atol=1e-4)


def test_calls_in_the_lost_part_of_a_recording_leave_all_figures(run, recipe, tmp_path):
    home = tmp_path / "cut"
    for i in range(6):
        put(home / f"r{i}_20240501_050000.wav", np.tile(SOUND, 2))  # 6 s
    cut = home / "r0_20240501_050000.wav"
    cut.write_bytes(cut.read_bytes()[: 44 + RATE * 2 * 2])  # 2 s
    rows = ["recording,start_time,end_time,species,verdict"]
    for i in range(6):
        rows.append(f"r{i}_20240501_050000,1,1.5,WOTH,{'present' if i % 2 else 'absent'}")
    rows.append("r0_20240501_050000,4,4.5,WOTH,present")
    table = tmp_path / "boxes.csv"
    table.write_text("\n".join(rows) + "\n")
    data = ap.open_data(audio=home, annotations=table)
    lost = [f for f in ap.check(data, sound=False).findings if f.code == "W_BOX_BEYOND_END"]
    assert [(f.file, f.row, f.serious) for f in lost] == [(str(table), 8, True)]
    assert len(data.dataset.annotations) == 6

    api.predict_to(run.model, [home], tmp_path / "out")
    calls = tmp_path / "calls.csv"
    calls.write_text("\n".join(row for row in rows if "absent" not in row) + "\n")
    metrics = api.evaluate_events(tmp_path / "out", calls).set_index("species")
    assert metrics.loc["WOTH", ["tp", "fn"]].sum() == 3
    findings = api.evaluate_events(tmp_path / "out", calls).attrs["findings"]
    assert [(f.code, f.file, f.row) for f in findings] == [("W_BOX_BEYOND_END", str(calls), 5)]
    truth = pd.read_csv(tmp_path / "out" / "presence.csv", dtype={"recording_id": str})
    truth.iloc[:, 1:] = (truth.iloc[:, 1:] > 0.5).astype(int)
    truth.to_csv(tmp_path / "truth.csv", index=False)
    notes = api.evaluate(tmp_path / "out", tmp_path / "truth.csv").notes
    assert any("1 scored recordings are cut short" in note for note in notes)


def damage(path, first=1 / 3, last=2 / 3):
    """Replace a part of the bytes of a file."""
    raw = bytearray(path.read_bytes())
    first, last = round(first * len(raw)), round(last * len(raw))
    raw[first:last] = bytes(last - first)
    path.write_bytes(raw)
    return path


@pytest.mark.parametrize("suffix", ["flac", "mp3"])
@pytest.mark.parametrize(("first", "last"), [(0.1, 0.3), (1 / 3, 2 / 3), (0.5, 0.9)])
def test_gap_in_the_middle_of_a_recording_is_known(tmp_path, suffix, first, last):
    whole = probe(put(tmp_path / f"whole.{suffix}", np.tile(SOUND, 10)), "a")
    assert find_gaps(whole) == ()
    damaged = probe(damage(put(tmp_path / f"a.{suffix}", np.tile(SOUND, 10)), first, last), "a")
    [(start, stop)] = find_gaps(damaged)
    assert start == pytest.approx(30 * first, abs=0.5)
    end = 30 * last if suffix == "flac" else damaged.duration
    assert end - 0.5 < stop < end + 1.5  # sound is looked for in steps


def test_recording_that_is_cut_or_whole_has_no_gap_inside(tmp_path):
    for suffix in ("flac", "mp3", "wav", "ogg"):
        path = put(tmp_path / f"a.{suffix}")
        assert find_gaps(probe(path, "a")) == ()
        path.write_bytes(path.read_bytes()[:-2000])
        assert find_gaps(probe(path, "a")) == ()
    tagged = put(tmp_path / "tagged.mp3")
    tagged.write_bytes(tagged.read_bytes() + b"TAG".ljust(128, b" "))
    assert find_gaps(probe(tagged, "a")) == ()


@pytest.mark.parametrize("suffix", ["flac", "mp3"])
def test_boxes_in_a_gap_leave_all_figures(run, recipe, tmp_path, suffix):
    home, rows = tmp_path / "gap", ["recording,start_time,end_time,species,verdict"]
    for i in range(6):
        path = put(home / f"r{i}_20240501_050000.{suffix}", np.tile(SOUND, 2))  # 6 s
        rows.append(f"{path.stem},0.5,1,WOTH,{'present' if i % 2 else 'absent'}")
    damage(home / f"r0_20240501_050000.{suffix}")
    rows.append("r0_20240501_050000,2.5,3.5,WOTH,present")
    rows.append("r0_20240501_050000,1.2,2.3,WOTH,present")  # less than half is lost
    table = tmp_path / "boxes.csv"
    table.write_text("\n".join(rows) + "\n")
    data = ap.open_data(audio=home, annotations=table)
    lost = [f for f in ap.check(data).findings if f.code == "W_BOX_IN_GAP"]
    assert [(f.file, f.row, f.serious) for f in lost] == [(str(table), 8, True)]
    result = ap.train(data, recipe=str(recipe), out=tmp_path / "run", export=False)
    assert len(leave_out_lost_boxes(data).dataset.annotations) == 7
    cells = pd.read_parquet(tmp_path / "run" / "oof_cells.parquet")
    assert len(cells) == 7
    assert "lies where r0_20240501_050000 is damaged" in (result.path / "report.html").read_text()

    api.predict_to(run.model, [home], tmp_path / "out")
    calls = tmp_path / "calls.csv"
    calls.write_text("\n".join(row for row in rows if "absent" not in row) + "\n")
    metrics = api.evaluate_events(tmp_path / "out", calls)
    assert metrics.set_index("species").loc["WOTH", ["tp", "fn"]].sum() == 4
    found = [(f.code, f.file, f.row) for f in metrics.attrs["findings"]]
    assert found == [("W_BOX_IN_GAP", str(calls), 5)]


def test_calls_of_a_recording_with_a_lost_part_are_unknown_and_absences_are_not(run, tmp_path):
    for i in range(4):
        put(tmp_path / "a" / f"r{i}.flac", np.tile(SOUND, 2) * (20 if i == 3 else 1))
    damage(tmp_path / "a" / "r0.flac")
    api.predict_to(run.model, [tmp_path / "a"], tmp_path / "out")
    truth = pd.read_csv(tmp_path / "out" / "presence.csv", dtype={"recording_id": str})
    truth.iloc[:, 1:] = np.indices((4, truth.shape[1] - 1)).sum(0) % 2
    truth.to_csv(tmp_path / "truth.csv", index=False)
    result = api.evaluate(tmp_path / "out", tmp_path / "truth.csv")
    calls = int(truth.iloc[0, 1:].sum())
    assert any(
        "1 scored recordings are cut short" in note and f": {calls} calls" in note
        for note in result.notes
    )
    assert result.reports[0].recordings == 4
    whole = truth.iloc[1:, 1:].to_numpy(int).sum()
    assert result.per_species["present"].sum() == whole


def test_channel_is_part_of_the_data_set_its_digest_and_its_cached_features(tmp_path):
    home = tmp_path / "data"
    other = np.random.default_rng(9).normal(0, 0.05, len(SOUND))
    put(home / "audio" / "two.wav", np.stack([SOUND, other], axis=1))
    put(home / "audio" / "one.wav")
    (home / "boxes.csv").write_text(
        "recording,start_time,end_time,species,verdict\ntwo,0,0.5,WOTH,present\n"
    )
    table, audio = home / "boxes.csv", home / "audio"
    api.init(home, audio=audio, annotations=table, channel=2)
    assert "channel = 2\n" in (home / "antpitta.toml").read_text()
    second, first = ap.open_data(home), ap.open_data(home, channel=1)
    mixed = ap.open_data(audio=audio, annotations=table)
    assert [recording.id for recording in second.dataset.recordings] == ["two"]
    assert [(f.code, f.file) for f in second.findings] == [
        ("W_AUDIO_UNREADABLE", str(audio / "one.wav"))
    ]
    assert len(first.dataset.recordings) == len(mixed.dataset.recordings) == 2
    assert len({dataset_digest(data.dataset) for data in (second, first, mixed)}) == 3
    sounds = []
    for data in (second, first, mixed):
        recording = next(r for r in data.dataset.recordings if r.id == "two")
        compute = lambda r, _: (np.abs(read(r, 0, 1, RATE)[:, None]) * 255).astype(np.uint8)  # noqa: E731
        [features] = cached_features([recording], "digest", compute, folder=tmp_path / "cache")
        sounds.append(features.astype(int))
    assert all((sounds[i] != sounds[i - 1]).any() for i in range(3))


@pytest.mark.parametrize("channel", ["0", "-1", "2.5", "true", '"1"'])
def test_channel_that_is_none_in_the_toml_is_an_error(tmp_path, channel):
    (tmp_path / "antpitta.toml").write_text(f'audio = "a"\nchannel = {channel}\n')
    with pytest.raises(UserError) as error:
        ap.open_data(tmp_path)
    assert error.value.code == "E_BAD_SOURCE"
