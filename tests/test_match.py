"""antpitta match: from example boxes to the tables of a prediction."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile as sf

import antpitta as ap
from antpitta.core.errors import UserError
from antpitta.files.formats import read_table
from antpitta.predict.tables import COLUMNS


@pytest.fixture(scope="module")
def boxes(simulated):
    """The table of example calls of two species."""
    table = pd.read_csv(simulated / "train_tp.csv")
    return table[table["species_id"].isin(table["species_id"].unique()[:2])]


@pytest.fixture(scope="module")
def templates(boxes, simulated, tmp_path_factory):
    """That table in a folder of its own, with copies of its recordings."""
    folder = tmp_path_factory.mktemp("templates")
    boxes.to_csv(folder / "examples.csv", index=False)
    for name in boxes["recording_id"].unique():
        (path,) = (simulated / "train").glob(f"{name}.*")
        shutil.copy(path, folder)
    return folder / "examples.csv"


@pytest.fixture(scope="module")
def matches(templates, simulated, recipe, tmp_path_factory):
    out = tmp_path_factory.mktemp("matches") / "out"
    return ap.match(templates, simulated / "train", out, recipe=str(recipe))


def own_matches(events, boxes):
    """The highest score of each box, among matches that begin where it does."""
    stem = events["file"].map(lambda file: Path(file).stem)
    for box in boxes.itertuples():
        near = (stem == box.recording_id) & (abs(events["start_time"] - box.t_min) < 0.03)
        yield events["score"][near & (events["species"] == f"s{box.species_id}")].max()


def test_every_example_is_found_where_it_is(matches, boxes):
    scores = np.array(list(own_matches(matches.events, boxes)))
    # An example may overlap another one that resembles it as well.
    assert (scores > 0.999).mean() > 0.8


def test_tables_are_those_of_a_prediction(matches, boxes, simulated):
    events = matches.events
    assert tuple(events.columns) == COLUMNS
    assert (events[["support", "verdict"]] == "").all(axis=None)
    assert events["score"].between(0.2, 1).all()
    assert events.groupby(["file", "species"]).size().max() <= 3
    presence = matches.presence
    assert list(presence.columns) == ["recording_id", *sorted(events["species"].unique())]
    assert len(presence) == len(list((simulated / "train").iterdir()))
    best = events.groupby("species")["score"].max()
    assert presence.drop(columns="recording_id").max().to_dict() == pytest.approx(best.to_dict())
    edges = boxes.groupby("species_id")[["f_min", "f_max"]].first()
    for species, low, high in events[["species", "low_freq", "high_freq"]].itertuples(index=False):
        assert (low, high) == pytest.approx(edges.loc[int(species[1:])], abs=0.06)


def test_matches_read_back_as_unreviewed(matches):
    table = read_table(matches.path / "events.csv")
    assert len(table.annotations) == 0
    assert table.unvalidated == len(matches.events)


def test_run_json_names_the_templates_and_what_decides(matches, boxes):
    content = json.loads((matches.path / "run.json").read_text())
    assert len(content["templates"]) == len(boxes)
    assert content["templates"][0]["recording"] == boxes["recording_id"].iloc[0]
    assert {"digest", "threshold", "most", "features"} <= set(content)


def test_templates_of_a_data_set_and_of_a_table_elsewhere_give_equal_matches(
    matches, templates, simulated, recipe, tmp_path
):
    table = shutil.copy(templates, tmp_path)
    again = ap.match(table, simulated / "train", tmp_path / "again", recipe=str(recipe))
    data = ap.open_data(audio=simulated / "train", present=templates)
    opened = ap.match(data, simulated / "train", tmp_path / "data", recipe=str(recipe), workers=1)
    for other in (again, opened):
        pd.testing.assert_frame_equal(other.events, matches.events)


def test_call_across_the_border_of_segments_is_found_once(simulated, recipe, tmp_path):
    folder = tmp_path / "long"
    folder.mkdir()
    rng = np.random.default_rng(0)
    wave = rng.normal(0, 0.01, 16_000 * 9)
    time = np.arange(8_000) / 16_000
    chirp = np.sin(2 * np.pi * (1500 + 1500 * time) * time) * np.hanning(8_000)
    for start in (1.0, 2.8, 6.5):  # the second lies across the border of segments of 3 s
        wave[int(start * 16_000) :][:8_000] += 0.3 * chirp
    sf.write(folder / "a.wav", wave, 16_000)
    (folder / "box.csv").write_text(
        "recording,start_time,end_time,low_freq,high_freq,species,verdict\n"
        "a,1.0,1.5,1200,4000,chirp,present\n"
    )
    found = ap.match(
        *(folder / "box.csv", folder / "a.wav", tmp_path / "out"),
        threshold=0.6, most=9, recipe=str(recipe), changes=("features.segment=3",),
    ).events  # fmt: skip
    assert found["start_time"].tolist() == pytest.approx([1.0, 2.8, 6.5], abs=0.02)
    assert found["end_time"].tolist() == pytest.approx([1.5, 3.3, 7.0], abs=0.02)


def test_resumed_search_computes_what_is_missing_and_writes_the_same(
    matches, templates, simulated, recipe, tmp_path
):
    archive, out = tmp_path / "archive", tmp_path / "out"
    shutil.copytree(simulated / "train", archive)
    late = sorted(archive.iterdir())[-1]
    late.rename(tmp_path / late.name)
    ap.match(templates, archive, out, recipe=str(recipe))
    (tmp_path / late.name).rename(late)
    done = []
    resumed = ap.match(
        templates, archive, out, recipe=str(recipe), resume=True,
        progress=lambda *figures: done.append(figures),
    )  # fmt: skip
    assert done[-1][:2] == (12, 12)
    assert [figures[2] > 0 for figures in done] == [False] * 11 + [True]
    columns = ["start_time", "species", "score"]
    pd.testing.assert_frame_equal(resumed.events[columns], matches.events[columns])
    with pytest.raises(UserError) as error:
        ap.match(templates, archive, out, threshold=0.5, recipe=str(recipe), resume=True)
    assert error.value.code == "E_RESUME_MISMATCH"


def test_unreadable_file_and_unusable_box_are_named_with_exit_code_1(
    antpitta, templates, simulated, recipe, tmp_path
):
    archive = tmp_path / "archive"
    archive.mkdir()
    shutil.copy(next((simulated / "test").iterdir()), archive)
    (archive / "broken.wav").write_bytes(b"RIFF....WAVE")
    table = templates.parent / "unusable.csv"
    text = templates.read_text().splitlines()
    row = dict(zip(text[0].split(","), text[1].split(","), strict=True))
    outside = ",".join({**row, "f_min": "9000", "f_max": "9500"}.values())
    table.write_text("\n".join([*text, outside]) + "\n")
    words = ("match", table, archive, "-o", tmp_path / "out", "--recipe", recipe)
    code, printed, _ = antpitta(*words)
    table.unlink()
    assert code == 1
    assert f"unusable.csv:{len(text) + 1}" in printed.replace("\n", "")
    quarantine = pd.read_csv(tmp_path / "out" / "quarantine.csv")
    assert [Path(file).name for file in quarantine["file"]] == ["broken.wav"]


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({"threshold": 0.0}, "E_OPTION"),
        ({"threshold": 1.5}, "E_OPTION"),
        ({"most": 0}, "E_OPTION"),
        ({"formats": "camtrapdp"}, "E_OPTION"),
        ({"recipe": "embedding", "changes": "embedding.model=no.onnx"}, "E_NO_EMBEDDING_MODEL"),
        ({"templates": "nothing.csv"}, "E_NO_FILE"),
        ({"audio": "nowhere"}, "E_NO_FILE"),
    ],
)
def test_mistake_has_a_code_and_writes_nothing(changed, code, templates, simulated, tmp_path):
    words = {"templates": templates, "audio": simulated / "test", "out": tmp_path / "out"}
    with pytest.raises(UserError) as error:
        ap.match(**{**words, **changed})
    assert error.value.code == code
    assert not (tmp_path / "out").exists()


def test_absent_boxes_give_no_template(templates, simulated, recipe, tmp_path):
    data = ap.open_data(audio=simulated / "train", absent=templates)
    with pytest.raises(UserError) as error:
        ap.match(data, simulated / "test", tmp_path / "out", recipe=str(recipe))
    assert error.value.code == "E_NO_TEMPLATES"


def test_more_templates_than_memory_are_refused(
    templates, simulated, recipe, tmp_path, monkeypatch
):
    monkeypatch.setattr("antpitta.api.matching.MAX_SPECTRA", 100_000)
    with pytest.raises(UserError) as error:
        ap.match(templates, simulated / "test", tmp_path / "out", recipe=str(recipe))
    assert error.value.code == "E_TOO_MANY_TEMPLATES"


@pytest.fixture(scope="module")
def embedding(write_network, tmp_path_factory):
    """Options for a recipe with a small embedding model, one vector each 0.125 s."""
    path = tmp_path_factory.mktemp("embedding") / "spectrum.onnx"
    write_network(path, samples=8_000)
    changes = (f"embedding.model={path}", "embedding.sample_rate=16000", "embedding.seconds=0.5")
    return {"recipe": "embedding", "changes": (*changes, "embedding.step=0.125")}


@pytest.fixture(scope="module")
def similar(templates, simulated, embedding, tmp_path_factory):
    out = tmp_path_factory.mktemp("similar") / "out"
    return ap.match(templates, simulated / "train", out, **embedding)


def test_similar_sounds_are_found_with_the_example_first(similar, boxes):
    events = similar.events
    stem = events["file"].map(lambda file: Path(file).stem)
    for box in boxes.itertuples():
        shared = np.minimum(events["end_time"], box.t_max) - np.maximum(
            events["start_time"], box.t_min
        )
        near = (
            (stem == box.recording_id) & (shared > 0) & (events["species"] == f"s{box.species_id}")
        )
        assert events["score"][near].max() > 0.999
    assert events.groupby(["file", "species"]).size().max() <= 3
    assert json.loads((similar.path / "run.json").read_text())["model"].startswith("similarity")


def test_cosine_is_that_of_the_mean_vectors_in_box_and_match(
    similar, boxes, simulated, embedding, write_network, tmp_path
):
    vector = write_network(tmp_path / "again.onnx", samples=8_000)

    def mean_vector(path, start, stop):
        wave, rate = sf.read(path, dtype="float32")
        middles = np.arange(0.0625, len(wave) / rate, 0.125)
        parts = [
            vector(wave[first : first + 8_000])
            for middle in middles[(middles >= start) & (middles < stop)]
            for first in [int(np.clip(round((middle - 0.25) * rate), 0, len(wave) - 8_000))]
        ]
        return np.mean(parts, axis=0)

    note = json.loads((similar.path / "run.json").read_text())
    examples = {template["name"]: template for template in note["templates"]}
    for event in similar.events.sample(20, random_state=0).itertuples():
        example = examples[event.model]
        (path,) = (simulated / "train").glob(f"{example['recording']}.*")
        first = mean_vector(path, example["start"], example["stop"])
        second = mean_vector(event.file, event.start_time, event.end_time)
        cosine = first @ second / np.linalg.norm(first) / np.linalg.norm(second)
        assert event.score == pytest.approx(cosine, abs=2e-3)


def test_similar_call_across_the_border_of_segments_is_found_once(
    templates, simulated, embedding, similar, tmp_path
):
    """Segments of another length change neither the vectors far from borders nor the count."""
    changes = (*embedding["changes"], "embedding.segment=3")
    short = ap.match(
        *(templates, simulated / "train", tmp_path / "out"), recipe="embedding", changes=changes
    ).events
    for _, events in short.groupby(["file", "species"]):
        times = events.sort_values("start_time")
        shared = times["end_time"].to_numpy()[:-1] - times["start_time"].to_numpy()[1:]
        assert (shared <= 0.5 * (times["end_time"] - times["start_time"]).max()).all()
    assert len(short) == pytest.approx(len(similar.events), rel=0.1)


def test_damaged_recording_is_named_in_every_search_for_similar_sounds(
    templates, simulated, embedding, tmp_path
):
    archive = tmp_path / "archive"
    archive.mkdir()
    damaged, cut = sorted((simulated / "test").iterdir())[:2]
    content = bytearray(damaged.read_bytes())
    middle = len(content) * 6 // 10
    content[middle : middle + 4000] = bytes(4000)
    (archive / damaged.name).write_bytes(content)
    (archive / cut.name).write_bytes(cut.read_bytes()[:middle])
    for name in ("first", "second"):  # vectors with silence for what is missing are not kept
        result = ap.match(templates, archive, tmp_path / name, **embedding)
        assert result.counts.quarantined == 2
        assert len(result.events) > 0


def test_examples_lie_beside_their_table_and_in_the_archive_and_missing_ones_are_named(
    antpitta, boxes, simulated, recipe, tmp_path
):
    """Half of the recordings lie in one place, half in the other; then one is missing."""
    here, archive = tmp_path / "here", tmp_path / "archive"
    here.mkdir()
    archive.mkdir()
    names = sorted(boxes["recording_id"].unique())
    for i, name in enumerate(names):
        (path,) = (simulated / "train").glob(f"{name}.*")
        shutil.copy(path, here if i % 2 else archive)
    boxes.to_csv(here / "examples.csv", index=False)
    result = ap.match(here / "examples.csv", archive, tmp_path / "out", recipe=str(recipe))
    note = json.loads((result.path / "run.json").read_text())
    assert sorted({template["recording"] for template in note["templates"]}) == names
    assert result.notes == ()
    next(here.glob(f"{names[1]}.*")).unlink()
    words = ("match", here / "examples.csv", archive, "-o", tmp_path / "less", "--recipe", recipe)
    code, printed, _ = antpitta(*words)
    assert code == 1
    assert names[1] in printed
