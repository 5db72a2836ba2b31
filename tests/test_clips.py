"""clips: sound and pictures of a real prediction as files, and the table that lists them."""

import io

import numpy as np
import pandas as pd
import pytest
import soundfile as sf
from PIL import Image

import antpitta as ap
from antpitta import api
from antpitta.core.errors import UserError
from antpitta.files.formats import read_table


@pytest.fixture(scope="module")
def predicted(run, simulated, tmp_path_factory):
    out = tmp_path_factory.mktemp("clips") / "out"
    api.predict_to(run.model, [simulated / "test"], out, threshold=0.2)
    return out


@pytest.fixture(scope="module")
def events(predicted):
    table = pd.read_csv(predicted / "events.csv")
    assert table["species"].nunique() > 1
    return table


def test_best_detections_of_each_species_become_sound_and_pictures(
    predicted, events, simulated, tmp_path, antpitta
):
    out = tmp_path / "clips"
    words = ("clips", predicted, "--audio", simulated / "test", "-o", out, "--most", 2)
    code, printed, _ = antpitta(*words, "--margin", 0.5)
    assert code == 0
    table = pd.read_csv(out / "clips.csv")
    assert f"{len(table)} clips of {events['species'].nunique()} species" in printed
    for species, own in table.groupby("species"):
        best = events[events["species"] == species]["score"].nlargest(2)
        assert sorted(own["score"], reverse=True) == best.tolist()
        assert all(clip.startswith(f"{species}/") for clip in own["clip"])
    assert table["verdict"].isna().all()
    row = table.iloc[0]
    wave, rate = sf.read(out / row["clip"])
    whole, _ = sf.read(row["file"])
    first = round(max(row["start_time"] - 0.5, 0.0) * rate)
    last = min(round((row["end_time"] + 0.5) * rate), len(whole))
    assert abs(len(wave) - (last - first)) <= 1
    part = whole[first : first + len(wave)]
    assert np.corrcoef(part, wave)[0, 1] > 0.999  # the very samples, at another level perhaps
    png = (out / row["clip"]).with_suffix(".png").read_bytes()
    assert Image.open(io.BytesIO(png)).size[0] >= 640


def test_one_species_in_any_spelling_and_unknown_ones_are_refused(
    predicted, events, simulated, tmp_path
):
    name = events["species"].iloc[0]
    audio = simulated / "test"
    result = ap.clips(predicted, audio, tmp_path / "clips", species=name.upper())
    assert result.species == 1
    assert {clip.split("/")[0] for clip in result.clips} == {name}
    with pytest.raises(UserError) as error:
        ap.clips(predicted, audio, tmp_path / "clips", species="phoenix")
    assert error.value.code == "E_SPECIES_NAME"


def test_table_that_is_filled_in_reads_as_verdicts_and_is_not_replaced(
    predicted, simulated, tmp_path
):
    out = tmp_path / "clips"
    ap.clips(predicted, simulated / "test", out, most=1)
    table = pd.read_csv(out / "clips.csv").astype({"verdict": object})
    table["verdict"] = ["present", *["absent"] * (len(table) - 1)]
    table.to_csv(out / "clips.csv", index=False)
    boxes = read_table(out / "clips.csv").annotations
    assert [box.present for box in boxes] == [True] + [False] * (len(table) - 1)
    data = ap.open_data(audio=simulated / "test", annotations=out / "clips.csv")
    assert len(data.dataset.annotations) == len(table)
    with pytest.raises(UserError) as error:
        ap.clips(predicted, simulated / "test", out)
    assert error.value.code == "E_OUTPUT_EDITED"


def test_detections_without_their_recording_are_listed(predicted, events, simulated, tmp_path,
                                                       antpitta):  # fmt: skip
    audio = tmp_path / "audio"
    audio.mkdir()
    gone = sorted(set(events["file"]))[0]
    for path in (simulated / "test").iterdir():
        if str(path) != gone:
            (audio / path.name).write_bytes(path.read_bytes())
    code, printed, _ = antpitta("clips", predicted, "--audio", audio, "-o", tmp_path / "clips")
    assert code == 1
    assert f"left out: {gone}" in printed
