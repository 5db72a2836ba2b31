"""Eighty odd files of sound, all of them in one run of check, one of train and one of predict."""

import math
import sqlite3

import numpy as np
import pandas as pd
import pytest

import antpitta as ap
from antpitta import api
from antpitta.files.texts import utf8_text
from tests.odd_sounds import UNREADABLE, write_odd_sounds

TRAINED_ON = (  # a call in each, so that all kinds of damage are trained on
    *("int24.wav", "opus.opus", "plain.mp3", "adpcm.wav", "two_chunks.wav", "size_0.wav"),
    *("count_absurd.flac", "damaged.flac", "garbage.mp3", "cut.caf", "opposite.wav", "nan.wav"),
    *("scaled.wav", "silent.wav", "short2.wav", "short3.wav", "zone.wav", "far.wav"),
)


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
    home = tmp_path_factory.mktemp("odd") / "sounds"
    sounds = write_odd_sounds(home)
    rows = ["recording,start_time,end_time,species,verdict"]
    for i, name in enumerate(TRAINED_ON):
        rows.append(f"{name},0,0.00005,WOTH,{'present' if i % 2 else 'absent'}")
        rows.append(f"{name},0,0.00005,BTNW,{'absent' if i % 3 else 'present'}")
    table = home.parent / "boxes.csv"
    table.write_text("\n".join(rows) + "\n")
    return home, sounds, ap.open_data(audio=home, annotations=table)


def test_check_reports_what_is_odd_and_nothing_else(odd):
    _, sounds, data = odd
    findings = {}
    for finding in ap.check(data).findings:
        name = finding.file.rpartition("/")[2]
        findings.setdefault(name, set()).add(finding.code)
    wrong = {}
    for sound in sounds:
        codes = findings.get(utf8_text(sound.name), set())
        if (sound.code not in codes) if sound.code else codes:
            wrong[sound.name] = (sound.code, codes)
    assert not wrong
    lengths = {r.path.name: r.duration for r in data.dataset.recordings}
    assert set(lengths) == {sound.name for sound in sounds if sound.code != UNREADABLE}
    expected = {s.name: s.seconds for s in sounds if s.seconds and not math.isnan(s.seconds)}
    assert {name: lengths[name] for name in expected} == pytest.approx(expected, abs=0.05)


def test_predict_scores_what_has_sound_and_lists_the_rest(odd, run, tmp_path):
    home, sounds, _ = odd
    api.predict_to(run.model, [home], tmp_path / "out", formats=("csv", "parquet", "raven"))
    presence = pd.read_csv(tmp_path / "out" / "presence.csv", dtype={"recording_id": str})
    assert len(presence) == sum(sound.seconds is not None for sound in sounds)
    assert np.isfinite(presence.drop(columns="recording_id").to_numpy()).all()
    reasons = pd.read_csv(tmp_path / "out" / "quarantine.csv", dtype=str)["file"]
    names = {file.rpartition("/")[2] for file in reasons}
    assert {utf8_text(sound.name) for sound in sounds if sound.seconds is None} <= names
    cut = {sound.name for sound in sounds if sound.code == "W_AUDIO_CUT_SHORT"}
    assert cut <= names
    with sqlite3.connect(tmp_path / "out" / "journal.sqlite") as journal:
        rows = journal.execute("SELECT path, duration FROM recordings").fetchall()
    lengths = {path.rpartition("/")[2]: duration for path, duration in rows}
    expected = {utf8_text(s.name): s.seconds for s in sounds if s.seconds and s.seconds > 0}
    expected = {name: seconds for name, seconds in expected.items() if not math.isnan(seconds)}
    assert {name: lengths[name] for name in expected} == pytest.approx(expected, abs=0.05)


def test_train_uses_what_has_sound(odd, recipe, tmp_path):
    _, _, data = odd
    settings, _, masked, _ = recipe.read_text().split("[[stages]]")
    one_stage = masked.replace('init_from = "crops"', "").replace("epochs = 2", "epochs = 1")
    (tmp_path / "one.toml").write_text(f"{settings}[[stages]]{one_stage}")
    result = ap.train(data, str(tmp_path / "one.toml"), tmp_path / "run", export=False)
    assert (result.model / "bundle.json").is_file()
    scores = pd.read_parquet(result.path / "oof_cells.parquet")
    assert np.isfinite(scores["score"]).all()
