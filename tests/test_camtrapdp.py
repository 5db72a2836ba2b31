"""A Camtrap DP that frictionless accepts, with correct times and nothing invented."""

import importlib.util
import json
import shutil
import sys
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from zoneinfo import ZoneInfo

import jsonschema
import pandas as pd
import pytest
from frictionless import Package

from antpitta.api import predict_to
from antpitta.cli import main
from antpitta.core.errors import UserError
from antpitta.files.audio import SUFFIXES
from antpitta.files.deployments import Deployment, Deployments, common_root
from antpitta.files.recordings import ListedFile
from antpitta.predict import exports
from antpitta.predict.camtrapdp import MEDIATYPES, NAME, write_package
from antpitta.predict.journal import JournalEntry

spec = importlib.util.spec_from_file_location(
    "camtrap_schemas", Path(__file__).with_name("camtrap_schemas.py")
)
SCHEMAS = importlib.util.module_from_spec(spec)
spec.loader.exec_module(SCHEMAS)
FILES = ("datapackage.json", "deployments.csv", "media.csv", "observations.csv")
WEST = timezone(timedelta(hours=-4))
SITES = {
    "bog": Deployment("bog", 51.25, 4.5, ZoneInfo("Europe/Brussels")),
    "El Yunque": Deployment("El Yunque", 18.3, -65.8, WEST, 250),
    "plain": Deployment("plain", -1.5, 10.0),
}


def errors_of(folder):
    """What frictionless and the profile report about a package."""
    descriptor = json.loads((folder / "datapackage.json").read_text(encoding="utf-8"))
    profile = jsonschema.Draft7Validator(SCHEMAS.PROFILE)
    messages = [error.message for error in profile.iter_errors(descriptor)]
    for resource in descriptor["resources"]:
        name = resource["name"]
        assert resource["schema"].endswith(f"/tdwg/camtrap-dp/1.0.2/{name}-table-schema.json")
        resource["schema"] = SCHEMAS.TABLES[name]
    assert descriptor.pop("profile").endswith("/tdwg/camtrap-dp/1.0.2/camtrap-dp-profile.json")
    report = Package.from_descriptor(descriptor, basepath=str(folder)).validate()
    assert report.stats["tasks"] == 3
    return messages + [row[-1] for row in report.flatten(["type", "note", "message"])]


def entry(path, *spans, recorded_at=None, site=None, species="Strix aluco", **more):
    events = tuple((start, stop, 500.0, 2000.0, species, 0.9, "m") for start, stop in spans)
    return JournalEntry(
        path, (1, 1), duration=60.0, recorded_at=recorded_at, site=site, events=events, **more
    )


def write(tmp_path, *entries, deployments=SITES, size=2):
    """The package of these entries, written in parts of ``size``."""
    listed = [(ListedFile(entry.path.stem, entry.path), entry) for entry in entries]
    parts = [listed[i : i + size] for i in range(0, len(listed), size)]
    info = Deployments(deployments, common_root([tmp_path]))
    contents = write_package(lambda: iter(parts), tmp_path / "out", info)
    return contents, tmp_path / "out" / NAME


def table(folder, name):
    return pd.read_csv(folder / f"{name}.csv", dtype=str, keep_default_na=False)


@pytest.fixture
def package(tmp_path):
    """Two sites with names, one that is a position, and recordings that lack something."""
    yunque = tmp_path / "El Yunque" / "S4A1_20200607_051500.flac"
    return write(
        tmp_path,
        entry(tmp_path / "b.wav", (1.0, 2.5), (10.25, 11.0),
              recorded_at="2025-01-01T23:59:50.900000", site="bog"),
        entry(tmp_path / "a.mp3", recorded_at="2025-01-01T10:00:00+01:00", site="bog",
              reason=f"{tmp_path / 'a.mp3'}: is cut short"),
        entry(yunque, (0.0, 60.0), recorded_at="2020-06-07T05:15:00", site="S4A1", species="Coquí"),
        entry(tmp_path / "p.wav", (59.5, 60.0), recorded_at="2025-03-01T00:00:00+00:00",
              site="-3.100 4.250"),
        entry(tmp_path / "none.wav", recorded_at="2025-01-01T00:00:00"),
        entry(tmp_path / "other.wav", (1.0, 2.0), recorded_at="2025-01-01T00:00:00", site="moon"),
        entry(tmp_path / "when.wav", (1.0, 2.0), site="bog"),
        entry(tmp_path / "zone.wav", (1.0, 2.0), recorded_at="2025-01-01T00:00:00", site="plain"),
    )  # fmt: skip


def test_package_has_no_errors_for_frictionless(package):
    contents, folder = package
    assert errors_of(folder) == []
    assert contents.counts() == {
        **{"deployments": 3, "media": 4, "observations": 4},
        "left_out": {"no site": 1, "no time": 1, "no time zone": 1, "unknown site": 1},
    }
    assert sorted(path.name for path in folder.iterdir()) == sorted(FILES)


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("observations", ",animal,", ",creature,", "enum"),
        ("observations", "b.wav,,", "c.wav,,", "foreign key"),
        ("media", "T10:00:00+01:00", "T10:00:00", "datetime"),
        ("media", "a.mp3,", "../a.mp3,", "pattern"),
        ("deployments", "51.25", "91.25", "maximum"),
        ("deployments", "bog", "El Yunque", "primary key"),
    ],
)
def test_schemas_refuse_a_damaged_package(package, name, old, new, message):
    path = package[1] / f"{name}.csv"
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")
    assert any(message in error.lower() for error in errors_of(package[1]))


def test_times_are_local_and_rounded_outwards(package):
    _, folder = package
    media = table(folder, "media").set_index("fileName")
    assert media.loc["b.wav", "timestamp"] == "2025-01-01T23:59:50+01:00"
    assert media.loc["S4A1_20200607_051500.flac", "timestamp"] == "2020-06-07T05:15:00-04:00"
    observations = table(folder, "observations")
    spans = observations[["eventStart", "eventEnd"]].to_numpy().tolist()
    # 23:59:50.9 + 1.0 and + 2.5; + 10.25 and + 11.0, after midnight
    assert spans[0] == ["2025-01-01T23:59:51+01:00", "2025-01-01T23:59:54+01:00"]
    assert spans[1] == ["2025-01-02T00:00:01+01:00", "2025-01-02T00:00:02+01:00"]
    assert spans[2] == ["2020-06-07T05:15:00-04:00", "2020-06-07T05:16:00-04:00"]
    stays = table(folder, "deployments").set_index("deploymentID")
    assert stays.index.tolist() == ["-3.100 4.250", "El Yunque", "bog"]
    assert stays.loc["bog", "deploymentStart"] == "2025-01-01T10:00:00+01:00"
    assert stays.loc["bog", "deploymentEnd"] == "2025-01-02T00:00:51+01:00"


def test_times_across_the_start_of_summer_time_change_their_offset(tmp_path):
    start = "2025-03-30T01:59:30"  # half a minute before summer time in Brussels
    _, folder = write(
        tmp_path, entry(tmp_path / "a.wav", (20.0, 40.0), recorded_at=start, site="bog")
    )
    event = table(folder, "observations").iloc[0]
    assert event["eventStart"] == "2025-03-30T01:59:50+01:00"
    assert event["eventEnd"] == "2025-03-30T03:00:10+02:00"


def test_observation_has_species_model_score_band_and_seconds(package):
    _, folder = package
    first = table(folder, "observations").iloc[0]
    assert first["observationID"] == "b.wav#t=1.000,2.500&Strix aluco"
    assert first[["deploymentID", "mediaID", "scientificName"]].tolist() == [
        *("bog", "b.wav", "Strix aluco")
    ]
    assert first[
        ["classificationMethod", "classifiedBy", "classificationProbability"]
    ].tolist() == [*("machine", "m", "0.9")]
    tags = dict(tag.split(":") for tag in first["observationTags"].split("|"))
    assert {name: float(value) for name, value in tags.items()} == {
        **{"start": 1.0, "end": 2.5},
        **{"frequencyLow": 500.0, "frequencyHigh": 2000.0},
    }


def test_recording_without_events_is_a_medium_without_observations(package):
    _, folder = package
    medium = table(folder, "media").set_index("mediaID").loc["a.mp3"]
    assert (medium["fileMediatype"], medium["filePublic"]) == ("audio/mpeg", "false")
    assert medium["mediaComments"] == "duration: 60.000 s; is cut short"
    assert "a.mp3" not in table(folder, "observations")["mediaID"].tolist()


def test_positions_of_sites_are_those_of_the_table_or_of_their_names(package):
    _, folder = package
    stays = table(folder, "deployments").set_index("deploymentID")
    positions = stays[["latitude", "longitude", "coordinateUncertainty"]].to_numpy().tolist()
    assert positions == [["-3.1", "4.25", "100"], ["18.3", "-65.8", "250"], ["51.25", "4.5", ""]]
    descriptor = json.loads((folder / "datapackage.json").read_text(encoding="utf-8"))
    assert descriptor["spatial"]["coordinates"][0][:3] == [[-65.8, -3.1], [4.5, -3.1], [4.5, 51.25]]
    assert descriptor["temporal"] == {"start": "2020-06-07", "end": "2025-03-01"}
    assert descriptor["created"] == "2025-03-01T00:01:00Z"
    assert descriptor["taxonomic"] == [
        {"scientificName": "Coquí"},
        {"scientificName": "Strix aluco"},
    ]


def test_recordings_that_are_left_out_are_listed_with_what_they_lack(package, tmp_path):
    unplaced = pd.read_csv(tmp_path / "out" / "unplaced.csv")
    assert [Path(file).name for file in unplaced["file"]] == [
        *("none.wav", "other.wav", "when.wav", "zone.wav")
    ]
    for reason, value in zip(
        unplaced["reason"], ("no site: ", "'moon'", "no time: ", "'plain'"), strict=True
    ):
        assert value in reason


def test_edited_terms_of_the_descriptor_are_kept(package, tmp_path):
    _, folder = package
    path = folder / "datapackage.json"
    descriptor = json.loads(path.read_text(encoding="utf-8"))
    licenses = [{"name": "CC0-1.0", "scope": "data"}, {"name": "CC-BY-4.0", "scope": "media"}]
    owl = {"scientificName": "Strix aluco", "taxonRank": "species"}
    descriptor |= {"title": "Owls", "licenses": licenses, "created": "x", "taxonomic": [owl, "?"]}
    path.write_text(json.dumps(descriptor), encoding="utf-8")
    recording = entry(tmp_path / "b.wav", (1.0, 2.5), recorded_at="2025-01-01T10:00:00", site="bog")
    write(tmp_path, recording)
    assert errors_of(folder) == []
    again = json.loads(path.read_text(encoding="utf-8"))
    assert (again["title"], again["licenses"], again["taxonomic"]) == ("Owls", licenses, [owl])
    assert again["created"] == "2025-01-01T09:01:00Z"
    assert again["spatial"] == {"type": "Point", "coordinates": [4.5, 51.25]}
    for damaged in ("{", "[]"):
        path.write_text(damaged, encoding="utf-8")
        with pytest.raises(UserError, match=r"datapackage\.json") as error:
            write(tmp_path, recording)
        assert error.value.code == "E_NOT_JSON"


def test_characters_that_the_standard_forbids_in_paths_are_escaped(tmp_path):
    names = ["~a.wav", "b..c.wav", "d%2E.wav", "é ü.wav"]
    files = [
        entry(tmp_path / name, recorded_at="2025-01-01T10:00:00", site="bog") for name in names
    ]
    _, folder = write(tmp_path, *files)
    assert errors_of(folder) == []
    media = table(folder, "media")
    assert media["filePath"].tolist() == ["%7Ea.wav", "b.%2Ec.wav", "d%252E.wav", "é ü.wav"]
    assert media["fileName"].tolist() == names


def test_path_of_a_file_outside_the_root_starts_at_the_root_of_the_disk(tmp_path):
    info = Deployments({"bog": SITES["bog"]}, tmp_path / "elsewhere")
    recording = entry(Path("/sound/a.wav"), recorded_at="2025-01-01T10:00:00")
    write_package(lambda: iter([[(ListedFile("a", recording.path), recording)]]), tmp_path, info)
    assert table(tmp_path / NAME, "media")["filePath"].tolist() == ["sound/a.wav"]


def test_common_root_is_the_folder_that_holds_all_roots(tmp_path):
    for name in ("x/a", "x/b"):
        (tmp_path / name).mkdir(parents=True)
    file = tmp_path / "x" / "b" / "s.wav"
    file.touch()
    assert common_root([tmp_path / "x" / "a"]) == tmp_path / "x" / "a"
    assert common_root([tmp_path / "x" / "a", file]) == tmp_path / "x"
    assert common_root([tmp_path / "x" / "a" / ".." / "b"]) == tmp_path / "x" / "b"


def test_without_recordings_there_is_no_package(package, tmp_path):
    _, folder = package
    contents, _ = write(tmp_path)
    assert (contents.media, contents.counts()["left_out"]) == (0, {})
    assert list(folder.iterdir()) == []
    assert pd.read_csv(tmp_path / "out" / "unplaced.csv").shape == (0, 2)


def test_every_audio_suffix_has_a_media_type():
    assert set(MEDIATYPES) == SUFFIXES


@pytest.fixture
def archive(simulated, tmp_path):
    """Three recordings at two sites with times in their names, and one without either."""
    home = tmp_path / "archive"
    home.mkdir()
    names = ("S1_20250101_050000", "S1_20250101_060000", "S2_20250102_050000", "clip")
    files = sorted((simulated / "test").glob("*.*"))
    for name, file in zip(names, files, strict=False):
        shutil.copyfile(file, home / f"{name}{file.suffix}")
    return home


@pytest.fixture
def sites(tmp_path):
    path = tmp_path / "sites.csv"
    path.write_text(
        "site;latitude;longitude;timezone\nS1;18.3;-65.8;-04:00\nS2;18.4;-65.9;-04:00\n"
    )
    return path


def test_resumed_prediction_writes_the_same_package(run, archive, sites, tmp_path, monkeypatch):
    both, out, whole = ("csv", NAME), tmp_path / "out", tmp_path / "whole"
    prediction = predict_to(run.model, [archive], whole, formats=both, deployments=sites)
    assert errors_of(whole / NAME) == []
    assert [Path(file).stem for file in prediction.unplaced["file"]] == ["clip"]
    counts = json.loads((whole / "run.json").read_text())[NAME]
    events = prediction.events[~prediction.events["file"].str.contains("clip")]
    assert (counts["media"], counts["observations"]) == (3, len(events))
    observed = table(whole / NAME, "observations")
    assert observed["scientificName"].tolist() == events["species"].tolist()
    first = datetime.fromisoformat(observed["eventStart"][0]).astimezone(UTC)
    assert first.date().isoformat() in ("2025-01-01", "2025-01-02")

    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(exports, "write_package", stop)
    with pytest.raises(KeyboardInterrupt):
        predict_to(run.model, [archive], out, formats=both, deployments=sites)
    monkeypatch.undo()
    for _ in range(2):
        predict_to(run.model, [archive], out, formats=both, deployments=sites, resume=True)
        for name in (*(f"{NAME}/{file}" for file in FILES), "unplaced.csv"):
            assert (out / name).read_bytes() == (whole / name).read_bytes()
    assert predict_to(run.model, [archive], out, resume=True).unplaced.empty


def test_camtrapdp_without_deployments_or_placed_recordings_is_a_user_error(
    run, archive, sites, tmp_path
):
    out = tmp_path / "out"
    with pytest.raises(UserError, match="--deployments") as error:
        predict_to(run.model, [archive], out, formats=(NAME,))
    assert error.value.code == "E_NO_DEPLOYMENTS"
    assert not out.exists()
    sites.write_text("site,latitude,longitude\nS1,18.3,-65.8\nS2,18.4,-65.9\n")
    with pytest.raises(UserError, match="no site, no time zone") as error:
        predict_to(run.model, [archive], out, formats=("csv", NAME), deployments=sites)
    assert error.value.code == "E_NOTHING_PLACED"
    assert json.loads((out / "run.json").read_text())["counts"]["recordings"] == 4
    sites.write_text("site,latitude,longitude,timezone\nS1,18.3,-65.8,-4\n")
    prediction = predict_to(
        run.model, [archive], out, formats=(NAME,), deployments=sites, resume=True
    )
    assert prediction.counts.recordings == 4
    assert len(prediction.unplaced) == 2


def test_command_reports_recordings_that_are_left_out_and_ends_with_1(
    run, archive, sites, tmp_path, monkeypatch, capsys
):
    words = ["predict", run.model, archive, "-o", tmp_path / "out", "--format", NAME]
    words = ["antpitta", *words, "--deployments", sites]
    monkeypatch.setattr(sys, "argv", [str(word) for word in words])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 1
    assert str(tmp_path / "out" / "unplaced.csv") in capsys.readouterr().out.replace("\n", "")
