"""candidates: sources of detections become a queue, and draws of what to listen to."""

from collections import Counter

import numpy as np
import pandas as pd
import pytest
import soundfile as sf

import antpitta as ap
from antpitta import api
from antpitta.core.errors import UserError
from antpitta.files.audio import content_key
from antpitta.review.merging import LONGEST, merge_detections
from antpitta.review.store import Store

RATE = 8000


@pytest.fixture
def audio(tmp_path):
    """Six recordings of 20 s at two sites."""
    rng = np.random.default_rng(0)
    for i in range(6):
        place = tmp_path / "audio" / f"S{i % 2}_2024060{1 + i}_050000.wav"
        place.parent.mkdir(exist_ok=True)
        sf.write(place, rng.normal(0, 0.1, 20 * RATE), RATE)
    return tmp_path / "audio"


def names_of(audio):
    return sorted(path.name for path in audio.iterdir())


@pytest.fixture
def birdnet(tmp_path, audio):
    """A table of BirdNET-Analyzer with 60 detections of two species."""
    rng = np.random.default_rng(1)
    table = tmp_path / "birdnet.csv"
    rows = ["Start (s),End (s),Scientific name,Common name,Confidence,File"]
    rows += [
        f"{(i // 6) * 2},{(i // 6) * 2 + 1},Turdus {'ab'[i % 2]},,{rng.random():.3f},{name}"
        for i, name in ((i, names_of(audio)[i % 6]) for i in range(60))
    ]
    table.write_text("\n".join(rows) + "\n")
    return table


def rows_of(queue):
    with Store.open(queue) as store:
        return list(store.candidates())


def test_table_of_birdnet_becomes_candidates_with_places_and_one_draw_by_score(
    tmp_path, audio, birdnet
):
    queue = tmp_path / "queue"
    result = ap.candidates(birdnet, queue, audio=audio)
    assert (result.added, result.known, result.species, result.recordings) == (60, 0, 2, 6)
    row = rows_of(queue)[0]
    name = row["recording_id"]
    assert row["recording_digest"] == content_key(audio / f"{name}.wav")
    assert (row["site"], row["recorded_at"][:10]) == (name[:2], f"2024-06-{name[9:11]}")
    assert (row["source"], len(row["source_digest"])) == ("birdnet", 40)
    with Store.open(queue) as store:
        (draw,) = store.draws()
        scores = [item["score"] for item in store.draw_items(draw["id"], limit=60)]
    assert (draw["purpose"], draw["items"]) == ("teach", 60)
    assert scores == sorted(scores, reverse=True)
    again = ap.candidates(birdnet, queue, audio=audio)
    assert (again.added, again.known, again.draws) == (0, 60, ())


def test_audit_is_drawn_in_strata_with_known_probabilities_and_hides_scores(
    tmp_path, audio, birdnet
):
    queue = tmp_path / "queue"
    (draw,) = ap.candidates(birdnet, queue, audio=audio, audit=10, seed=3).draws
    with Store.open(queue) as store:
        rows = list(store.audit_rows())
        assert "score" not in store.draw_items(draw["id"])[0]
        population = Counter(row["species"] for row in store.candidates())
    assert Counter(row["species"] for row in rows) == {"Turdus a": 10, "Turdus b": 10}
    assert (draw["purpose"], draw["seed"], len(draw["model_digest"])) == ("audit", 3, 40)
    for species, count in population.items():
        own = [row for row in rows if row["species"] == species]
        assert sum(1 / row["inclusion_p"] for row in own) == pytest.approx(count)
        assert len({row["stratum"] for row in own}) > 2
        for row in own:
            low, high = map(float, row["stratum"].split(": ")[1].split(" to "))
            assert low - 1e-3 <= row["score"] <= high + 1e-3


def test_teaching_draw_passes_over_what_was_judged_or_drawn(tmp_path, audio, birdnet):
    queue = tmp_path / "queue"
    ap.candidates(birdnet, queue, audio=audio, audit=5)
    (first,) = ap.candidates(birdnet, queue, audio=audio, teach=20).draws
    with Store.open(queue) as store:
        held = {row["candidate"] for row in store.audit_rows()}
        items = store.draw_items(first["id"])
    assert len(items) == 20
    assert not held & {item["candidate"] for item in items}
    assert len({item["site"] for item in items[:4]}) == 2
    (second,) = ap.candidates(birdnet, queue, audio=audio, teach=1000).draws
    assert second["items"] == 60 - 20 - len(held)


def test_output_of_predict_is_a_source_with_the_digest_of_its_model(run, simulated, tmp_path):
    out, queue = tmp_path / "out", tmp_path / "queue"
    prediction = api.predict_to(run.model, [simulated / "test"], out)
    result = ap.candidates(out, queue)
    rows = rows_of(queue)
    assert {row["source"] for row in rows} == {"predict"}
    assert rows[0]["source_digest"] in (out / "run.json").read_text()
    assert 0 < result.added <= prediction.counts.events
    assert {row["recording_id"] for row in rows} <= {
        path.stem for path in (simulated / "test").iterdir()
    }


def write_raven(path, name):
    header = "Selection\tView\tChannel\tBegin Time (s)\tEnd Time (s)\tLow Freq (Hz)\t"
    header += "High Freq (Hz)\tBegin File\tSpecies"
    path.write_text(f"{header}\n1\tSpectrogram 1\t1\t2.0\t3.0\t500\t1500\t{name}\twren\n")


def write_kaleidoscope(path, name):
    path.write_text(
        f"INDIR,FOLDER,IN FILE,OFFSET,DURATION,AUTO ID,MANUAL ID\n,,{name},2.0,1.0,wren,\n"
    )


def write_arbimon(path, name):
    path.write_text(
        "recording,site,year,month,day,hour,min,species,songtype,x1,x2,y1,y2,validated\n"
        f"{name},S0,2024,6,1,5,0,wren,Common Song,2.0,3.0,500,1500,\n"
    )


def write_audacity(path, name):
    path.with_name(name).with_suffix(".txt").write_text(
        "2.000000\t3.000000\twren;0.5\n\\\t500.000000\t1500.000000\n"
    )


WRITERS = [write_raven, write_kaleidoscope, write_arbimon, write_audacity]


@pytest.mark.parametrize("write", WRITERS, ids=lambda write: write.__name__)
def test_tables_of_other_programs_become_candidates_at_their_times(tmp_path, audio, write):
    name = names_of(audio)[0]
    (tmp_path / "tables").mkdir()
    write(tmp_path / "tables" / "table.txt", name)
    result = ap.candidates(tmp_path / "tables", tmp_path / "queue", audio=audio)
    (row,) = rows_of(tmp_path / "queue")
    assert (row["start_time"], row["end_time"], row["species"]) == (2.0, 3.0, "wren")
    assert row["recording_id"] == name.removesuffix(".wav")
    assert row["judged"] is False
    assert result.verdicts == 0


def test_rows_that_are_no_candidates_are_counted(tmp_path, audio):
    name = names_of(audio)[0]
    table = tmp_path / "cluster.csv"
    table.write_text(
        "INDIR,FOLDER,IN FILE,OFFSET,DURATION,TOP1MATCH,MANUAL ID\n"
        f",,{name},2,1,cluster.3,\n,,{name},5,1,cluster.1,\n,,{name},9,1,cluster.3,wren\n"
    )
    result = ap.candidates(table, tmp_path / "queue", audio=audio)
    assert (result.added, result.verdicts) == (1, 1)
    (finding,) = result.findings
    assert (finding.code, finding.what) == ("W_CELL_EMPTY", "2 rows name no species")
    table = tmp_path / "own.csv"
    table.write_text(
        f"recording,start_time,end_time,species,verdict\n{name},1,2,wren,\n{name},3,4,*,absent\n"
    )
    result = ap.candidates(table, tmp_path / "other", audio=audio)
    assert [finding.code for finding in result.findings] == ["W_NO_SOUND"]


def test_verdicts_of_a_table_stay_those_of_a_reviewer_and_come_once(tmp_path, audio):
    name = names_of(audio)[0]
    table = tmp_path / "events.csv"
    table.write_text(
        "file,start_time,end_time,species,score,verdict\n"
        f"{name},1,2,wren,0.9,present\n{name},2.1,3,wren,0.8,\n{name},9,10,wren,0.2,no\n"
    )
    for verdicts in (2, 2):
        assert ap.candidates(table, tmp_path / "queue", audio=audio).verdicts == verdicts
    with Store.open(tmp_path / "queue") as store:
        rows = list(store.current())
        assert [row["name"] for row in store.reviewers()] == ["antpitta table events.csv"]
        assert len(list(store.candidates())) == 3  # a judged box is not merged
    assert [row["verdict"] for row in rows] == ["present", "absent"]


def test_rows_without_their_recording_are_left_out_and_reported(tmp_path, audio, birdnet):
    text = birdnet.read_text()
    name = names_of(audio)[0]
    birdnet.write_text(f"{text}1,2,Turdus a,,0.5,elsewhere.wav\n99,100,Turdus a,,0.5,{name}\n")
    result = ap.candidates(birdnet, tmp_path / "queue", audio=audio)
    assert result.added == 60
    assert {finding.code for finding in result.findings} == {"W_NO_AUDIO", "W_BOX_BEYOND_END"}


def test_command_prints_how_to_open_the_queue_and_ends_with_1_where_rows_are_left_out(
    tmp_path, audio, birdnet, antpitta
):
    words = ("candidates", birdnet, "-o", tmp_path / "my queue", "--audio", audio)
    code, out, _ = antpitta(*words, "--teach", 5)
    assert code == 0
    assert f"antpitta review '{tmp_path / 'my queue'}' --audio {audio}\n" in out
    assert "draw 1 (teach): 5 candidates" in out
    birdnet.write_text(birdnet.read_text() + "1,2,Turdus a,,0.5,elsewhere.wav\n")
    assert antpitta(*words)[0] == 1


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (lambda home: (home / "none", {}), "E_NO_FILE"),
        (lambda home: (home / "birdnet.csv", {}), "E_DATA_MISSING"),
        (lambda home: ((), {}), "E_DATA_MISSING"),
        (lambda home: (home / "birdnet.csv", {"teach": -1}), "E_OPTION"),
        (lambda home: (home / "birdnet.csv", {"audio": home / "other"}), "E_NO_MATCHING_AUDIO"),
    ],
)
def test_mistake_is_an_error_and_makes_no_queue(tmp_path, audio, birdnet, make, code):
    (tmp_path / "other").mkdir()
    sf.write(tmp_path / "other" / "noise.wav", np.zeros(RATE), RATE)
    sources, options = make(tmp_path)
    with pytest.raises(UserError) as error:
        ap.candidates(sources, tmp_path / "queue", **options)
    assert error.value.code == code
    assert not (tmp_path / "queue").exists()


def test_folder_with_other_files_is_refused_before_anything_is_read(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    with pytest.raises(UserError) as error:
        ap.candidates(tmp_path / "none.csv", tmp_path / "mine")
    assert error.value.code == "E_OUT_NOT_EMPTY"


def detections(*rows):
    names = ("recording_id", "species", "start_time", "end_time", "score")
    return pd.DataFrame(rows, columns=names).assign(low_freq=0.0, high_freq=np.inf)


def test_neighbouring_detections_are_merged_and_keep_their_times():
    table = detections(
        ("a", "wren", 3.0, 6.0, 0.9),
        ("a", "wren", 0.0, 3.0, 0.4),
        ("a", "wren", 6.6, 7.0, np.nan),
        ("a", "robin", 6.0, 7.0, 0.5),
        ("b", "wren", 6.0, 7.0, 0.5),
    )
    merged = merge_detections(table, 0.5)
    assert len(merged) == 4
    wren = merged[(merged["recording_id"] == "a") & (merged["species"] == "wren")]
    assert wren["end_time"].tolist() == [6.0, 7.0]
    assert wren["score"].iloc[0] == 0.9
    assert wren["detections"].iloc[0] == [(0.0, 3.0, 0.4), (3.0, 6.0, 0.9)]
    assert wren["detections"].iloc[1] == [(6.6, 7.0, None)]


def test_merged_candidate_is_never_longer_than_a_person_can_judge():
    rows = [("a", "wren", float(i), i + 1.0, 0.5) for i in range(100)]
    merged = merge_detections(detections(*rows), 0.5)
    assert (merged["end_time"] - merged["start_time"]).max() == LONGEST
    assert sum(map(len, merged["detections"])) == 100
