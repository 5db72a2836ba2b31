"""A Camtrap DP that frictionless accepts, with true times, and nothing made up."""

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
from antpitta.files.deployments import Deployment, Deployments
from antpitta.files.recordings import ListedFile
from antpitta.predict import tables
from antpitta.predict.camtrapdp import MEDIATYPES, NAME, DeploymentInfo, common_root, write_package
from antpitta.predict.journal import JournalEntry

spec = importlib.util.spec_from_file_location(
    "camtrap_schemas", Path(__file__).with_name("camtrap_schemas.py")
)
SCHEMAS = importlib.util.module_from_spec(spec)
spec.loader.exec_module(SCHEMAS)
FILES = ("datapackage.json", "deployments.csv", "media.csv", "observations.csv")
WEST = timezone(timedelta(hours=-4))
PLACES = {
    "bog": Deployment("bog", 51.25, 4.5, ZoneInfo("Europe/Brussels")),
    "El Yunque": Deployment("El Yunque", 18.3, -65.8, WEST, 250),
    "plain": Deployment("plain", -1.5, 10.0),
}


def errors_of(folder):
    """What frictionless and the profile have against a package."""
    told = json.loads((folder / "datapackage.json").read_text(encoding="utf-8"))
    found = [one.message for one in jsonschema.Draft7Validator(SCHEMAS.PROFILE).iter_errors(told)]
    for resource in told["resources"]:
        name = resource["name"]
        assert resource["schema"].endswith(f"/tdwg/camtrap-dp/1.0.2/{name}-table-schema.json")
        resource["schema"] = SCHEMAS.TABLES[name]
    assert told.pop("profile").endswith("/tdwg/camtrap-dp/1.0.2/camtrap-dp-profile.json")
    report = Package.from_descriptor(told, basepath=str(folder)).validate()
    assert report.stats["tasks"] == 3
    return found + [one[-1] for one in report.flatten(["type", "note", "message"])]


def entry(path, *spans, began=None, site=None, species="Strix aluco", **more):
    events = tuple((a, b, 500.0, 2000.0, species, 0.9, "m") for a, b in spans)
    return JournalEntry(
        path, (1, 1), seconds=60.0, recorded_at=began, site=site, events=events, **more
    )


def write(tmp_path, *entries, deployments=PLACES, size=2):
    """The package of these entries, in parts of some."""
    listed = [(ListedFile(one.path.stem, one.path), one) for one in entries]
    parts = [listed[i : i + size] for i in range(0, len(listed), size)]
    survey = DeploymentInfo(Deployments(deployments), common_root([tmp_path]))
    packed = write_package(lambda: iter(parts), tmp_path / "out", survey)
    return packed, tmp_path / "out" / NAME


def table(folder, name):
    return pd.read_csv(folder / f"{name}.csv", dtype=str, keep_default_na=False)


@pytest.fixture
def package(tmp_path):
    """Three parts: two sites that are named, one of a position, and all that may be lacking."""
    yunque = tmp_path / "El Yunque" / "S4A1_20200607_051500.flac"
    return write(
        tmp_path,
        entry(tmp_path / "b.wav", (1.0, 2.5), (10.25, 11.0), began="2025-01-01T23:59:50.900000",
              site="bog"),
        entry(tmp_path / "a.mp3", began="2025-01-01T10:00:00+01:00", site="bog",
              reason=f"{tmp_path / 'a.mp3'}: is cut short"),
        entry(yunque, (0.0, 60.0), began="2020-06-07T05:15:00", site="S4A1", species="Coquí"),
        entry(tmp_path / "p.wav", (59.5, 60.0), began="2025-03-01T00:00:00+00:00",
              site="-3.100 4.250"),
        entry(tmp_path / "none.wav", began="2025-01-01T00:00:00"),
        entry(tmp_path / "other.wav", (1.0, 2.0), began="2025-01-01T00:00:00", site="moon"),
        entry(tmp_path / "when.wav", (1.0, 2.0), site="bog"),
        entry(tmp_path / "zone.wav", (1.0, 2.0), began="2025-01-01T00:00:00", site="plain"),
    )  # fmt: skip


def test_frictionless_finds_nothing_wrong(package):
    packed, folder = package
    assert errors_of(folder) == []
    assert packed.counts() == {
        **{"deployments": 3, "media": 4, "observations": 4},
        "left_out": {"no place": 1, "no site": 1, "no time": 1, "no time zone": 1},
    }
    assert sorted(path.name for path in folder.iterdir()) == sorted(FILES)


@pytest.mark.parametrize(
    ("name", "old", "new", "said"),
    [
        ("observations", ",animal,", ",creature,", "enum"),
        ("observations", "b.wav,,", "c.wav,,", "foreign key"),
        ("media", "T10:00:00+01:00", "T10:00:00", "datetime"),
        ("media", "a.mp3,", "../a.mp3,", "pattern"),
        ("deployments", "51.25", "91.25", "maximum"),
        ("deployments", "bog", "El Yunque", "primary key"),
    ],
)
def test_the_schemas_that_the_package_is_held_against_do_refuse(package, name, old, new, said):
    path = package[1] / f"{name}.csv"
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")
    assert any(said in error.lower() for error in errors_of(package[1]))


def test_times_are_those_of_the_recorders_clock_rounded_outwards(package):
    _, folder = package
    media = table(folder, "media").set_index("fileName")
    assert media.loc["b.wav", "timestamp"] == "2025-01-01T23:59:50+01:00"
    assert media.loc["S4A1_20200607_051500.flac", "timestamp"] == "2020-06-07T05:15:00-04:00"
    found = table(folder, "observations")
    spans = found[["eventStart", "eventEnd"]].to_numpy().tolist()
    # 23:59:50.9 + 1.0 and + 2.5; + 10.25 and + 11.0, behind midnight
    assert spans[0] == ["2025-01-01T23:59:51+01:00", "2025-01-01T23:59:54+01:00"]
    assert spans[1] == ["2025-01-02T00:00:01+01:00", "2025-01-02T00:00:02+01:00"]
    assert spans[2] == ["2020-06-07T05:15:00-04:00", "2020-06-07T05:16:00-04:00"]
    stays = table(folder, "deployments").set_index("deploymentID")
    assert stays.index.tolist() == ["-3.100 4.250", "El Yunque", "bog"]
    assert stays.loc["bog", "deploymentStart"] == "2025-01-01T10:00:00+01:00"
    assert stays.loc["bog", "deploymentEnd"] == "2025-01-02T00:00:51+01:00"


def test_a_clock_that_is_put_forward_meanwhile_goes_on(tmp_path):
    start = "2025-03-30T01:59:30"  # half a minute before summer time in Brussels
    _, folder = write(tmp_path, entry(tmp_path / "a.wav", (20.0, 40.0), began=start, site="bog"))
    found = table(folder, "observations").iloc[0]
    assert found["eventStart"] == "2025-03-30T01:59:50+01:00"
    assert found["eventEnd"] == "2025-03-30T03:00:10+02:00"


def test_an_observation_tells_species_model_score_band_and_seconds(package):
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


def test_a_silent_recording_is_a_medium_without_observations(package):
    _, folder = package
    silent = table(folder, "media").set_index("mediaID").loc["a.mp3"]
    assert (silent["fileMediatype"], silent["filePublic"]) == ("audio/mpeg", "false")
    assert silent["mediaComments"] == "duration: 60.000 s; is cut short"
    assert "a.mp3" not in table(folder, "observations")["mediaID"].tolist()


def test_sites_lie_where_the_table_or_their_own_position_says(package):
    _, folder = package
    stays = table(folder, "deployments").set_index("deploymentID")
    lies = stays[["latitude", "longitude", "coordinateUncertainty"]].to_numpy().tolist()
    assert lies == [["-3.1", "4.25", "100"], ["18.3", "-65.8", "250"], ["51.25", "4.5", ""]]
    told = json.loads((folder / "datapackage.json").read_text(encoding="utf-8"))
    assert told["spatial"]["coordinates"][0][:3] == [[-65.8, -3.1], [4.5, -3.1], [4.5, 51.25]]
    assert told["temporal"] == {"start": "2020-06-07", "end": "2025-03-01"}
    assert told["created"] == "2025-03-01T00:01:00Z"
    assert told["taxonomic"] == [{"scientificName": "Coquí"}, {"scientificName": "Strix aluco"}]


def test_what_is_left_out_is_named_with_what_it_lacks(package, tmp_path):
    found = pd.read_csv(tmp_path / "out" / "unplaced.csv")
    assert [Path(file).name for file in found["file"]] == [
        *("none.wav", "other.wav", "when.wav", "zone.wav")
    ]
    for reason, said in zip(
        found["reason"], ("no site: ", "'moon'", "no time: ", "site 'plain'"), strict=True
    ):
        assert said in reason


def test_what_people_wrote_into_the_descriptor_stays(package, tmp_path):
    _, folder = package
    path = folder / "datapackage.json"
    told = json.loads(path.read_text(encoding="utf-8"))
    licenses = [{"name": "CC0-1.0", "scope": "data"}, {"name": "CC-BY-4.0", "scope": "media"}]
    owl = {"scientificName": "Strix aluco", "taxonRank": "species"}
    told |= {"title": "Owls", "licenses": licenses, "created": "x", "taxonomic": [owl, "?"]}
    path.write_text(json.dumps(told), encoding="utf-8")
    one = entry(tmp_path / "b.wav", (1.0, 2.5), began="2025-01-01T10:00:00", site="bog")
    write(tmp_path, one)
    assert errors_of(folder) == []
    again = json.loads(path.read_text(encoding="utf-8"))
    assert (again["title"], again["licenses"], again["taxonomic"]) == ("Owls", licenses, [owl])
    assert again["created"] == "2025-01-01T09:01:00Z"
    assert again["spatial"] == {"type": "Point", "coordinates": [4.5, 51.25]}
    for broken, said in (("{", "mend or delete"), ("[]", "no JSON object")):
        path.write_text(broken, encoding="utf-8")
        with pytest.raises(UserError, match=said):
            write(tmp_path, one)


def test_paths_that_the_standard_bars_are_told_in_another_way(tmp_path):
    names = ["~a.wav", "b..c.wav", "d%2E.wav", "é ü.wav"]
    files = [entry(tmp_path / name, began="2025-01-01T10:00:00", site="bog") for name in names]
    _, folder = write(tmp_path, *files)
    assert errors_of(folder) == []
    media = table(folder, "media")
    assert media["filePath"].tolist() == ["%7Ea.wav", "b.%2Ec.wav", "d%252E.wav", "é ü.wav"]
    assert media["fileName"].tolist() == names


def test_a_file_from_elsewhere_is_told_from_the_root(tmp_path):
    survey = DeploymentInfo(Deployments({"bog": PLACES["bog"]}), tmp_path / "elsewhere")
    one = entry(Path("/sound/a.wav"), began="2025-01-01T10:00:00")
    write_package(lambda: iter([[(ListedFile("a", one.path), one)]]), tmp_path, survey)
    assert table(tmp_path / NAME, "media")["filePath"].tolist() == ["sound/a.wav"]


def test_home_is_the_folder_that_holds_all_roots(tmp_path):
    for name in ("x/a", "x/b"):
        (tmp_path / name).mkdir(parents=True)
    file = tmp_path / "x" / "b" / "s.wav"
    file.touch()
    assert common_root([tmp_path / "x" / "a"]) == tmp_path / "x" / "a"
    assert common_root([tmp_path / "x" / "a", file]) == tmp_path / "x"
    assert common_root([tmp_path / "x" / "a" / ".." / "b"]) == tmp_path / "x" / "b"


def test_without_any_recording_there_is_no_package(package, tmp_path):
    _, folder = package
    packed, _ = write(tmp_path)
    assert (packed.media, packed.counts()["left_out"]) == (0, {})
    assert list(folder.iterdir()) == []
    assert pd.read_csv(tmp_path / "out" / "unplaced.csv").shape == (0, 2)


def test_every_suffix_has_a_media_type():
    assert set(MEDIATYPES) == SUFFIXES


@pytest.fixture
def archive(scapes, tmp_path):
    """Three recordings at two sites whose names tell when, and one that tells nothing."""
    home = tmp_path / "archive"
    home.mkdir()
    names = ("S1_20250101_050000", "S1_20250101_060000", "S2_20250102_050000", "clip")
    files = sorted((scapes / "test").glob("*.*"))
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


def test_predict_writes_the_same_package_however_often_it_was_stopped(
    run, archive, sites, tmp_path, monkeypatch
):
    both, out, whole = ("csv", NAME), tmp_path / "out", tmp_path / "whole"
    found = predict_to(run.model, [archive], whole, formats=both, deployments=sites)
    assert errors_of(whole / NAME) == []
    assert [Path(file).stem for file in found.unplaced["file"]] == ["clip"]
    packed = json.loads((whole / "run.json").read_text())[NAME]
    events = found.events[~found.events["file"].str.contains("clip")]
    assert (packed["media"], packed["observations"]) == (3, len(events))
    observed = table(whole / NAME, "observations")
    assert observed["scientificName"].tolist() == events["species"].tolist()
    first = datetime.fromisoformat(observed["eventStart"][0]).astimezone(UTC)
    assert first.date().isoformat() in ("2025-01-01", "2025-01-02")

    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(tables, "write_package", stop)
    with pytest.raises(KeyboardInterrupt):
        predict_to(run.model, [archive], out, formats=both, deployments=sites)
    monkeypatch.undo()
    for _ in range(2):
        predict_to(run.model, [archive], out, formats=both, deployments=sites, resume=True)
        for name in (*(f"{NAME}/{file}" for file in FILES), "unplaced.csv"):
            assert (out / name).read_bytes() == (whole / name).read_bytes()
    assert predict_to(run.model, [archive], out, resume=True).unplaced.empty


def test_predict_says_what_the_package_lacks(run, archive, sites, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(UserError, match="site, latitude, longitude and timezone"):
        predict_to(run.model, [archive], out, formats=(NAME,))
    assert not out.exists()
    sites.write_text("site,latitude,longitude\nS1,18.3,-65.8\nS2,18.4,-65.9\n")
    with pytest.raises(UserError, match="all lack no site or no time zone"):
        predict_to(run.model, [archive], out, formats=("csv", NAME), deployments=sites)
    assert json.loads((out / "run.json").read_text())["counts"]["recordings"] == 4
    sites.write_text("site,latitude,longitude,timezone\nS1,18.3,-65.8,-4\n")
    found = predict_to(run.model, [archive], out, formats=(NAME,), deployments=sites, resume=True)
    assert found.counts.recordings == 4
    assert len(found.unplaced) == 2


def test_the_command_says_how_many_are_left_out_and_ends_with_1(
    run, archive, sites, tmp_path, monkeypatch, capsys
):
    words = ["predict", run.model, archive, "-o", tmp_path / "out", "--format", NAME]
    words = ["antpitta", *words, "--deployments", sites]
    monkeypatch.setattr(sys, "argv", [str(word) for word in words])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 1
    said = f"1 recordings are not in camtrapdp: {tmp_path / 'out' / 'unplaced.csv'}"
    assert said in capsys.readouterr().out.replace("\n", "")
