"""The table of deployments: positions and time zones of sites, and errors that name the row."""

from datetime import UTC, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest

from antpitta.core.errors import UserError
from antpitta.files.deployments import Deployment, Deployments, read_deployments


def write(folder, text, encoding="utf-8"):
    path = folder / "deployments.csv"
    path.write_bytes(text.encode(encoding))
    return path


def test_columns_in_any_order_and_encoding_are_read(tmp_path):
    text = "Lon;Lat;Site Name;TZ;Uncertainty\n-65.8;18.3;Río Abajo;-0430;99.6\n10;-1;x;;\n"
    by_site = read_deployments(write(tmp_path, text, "utf-16")).by_site
    west = timezone(-timedelta(hours=4, minutes=30))
    assert by_site == {
        "Río Abajo": Deployment("Río Abajo", 18.3, -65.8, west, 100),
        "x": Deployment("x", -1.0, 10.0),
    }


@pytest.mark.parametrize(
    ("text", "zone"),
    [
        ("UTC", UTC),
        ("z", UTC),
        ("+02:00", timezone(timedelta(hours=2))),
        ("UTC-4", timezone(timedelta(hours=-4))),
        ("+0545", timezone(timedelta(hours=5, minutes=45))),
        ("America/Puerto_Rico", ZoneInfo("America/Puerto_Rico")),
    ],
)
def test_zone_is_an_offset_or_a_name(tmp_path, text, zone):
    path = write(tmp_path, f"site,latitude,longitude,timezone\na,0,0,{text}\n")
    parsed = read_deployments(path).by_site["a"].zone
    summer = datetime(2025, 7, 1)
    assert summer.replace(tzinfo=parsed).utcoffset() == summer.replace(tzinfo=zone).utcoffset()


@pytest.mark.parametrize(
    ("rows", "value"),
    [
        (["a,18°19',-65.8,,"], "18°19'"),
        (["a,91,-65.8,,"], "'91'"),
        (["a,nan,-65.8,,"], "'nan'"),
        (["a,18.3,,,"], "''"),
        (["a,18.3,-181,,"], "'-181'"),
        (["a,18.3,-65.8,America,"], "'America'"),
        (["a,18.3,-65.8,AST4,"], "'AST4'"),
        (["a,18.3,-65.8,+19:00,"], "'+19:00'"),
        (["a,18.3,-65.8,../../etc,"], "'../../etc'"),
        (["a,18.3,-65.8,,far"], "'far'"),
        (["a,18.3,-65.8,,inf"], "'inf'"),
        (["a,18.3,-65.8,,0"], "'0'"),
        ([",18.3,-65.8,,"], "site"),
        (["a,1,1,,", "a,1,1,,"], "'a'"),
    ],
)
def test_row_with_a_mistake_is_named(tmp_path, rows, value):
    header = "site,latitude,longitude,timezone,uncertainty"
    path = write(tmp_path, "\n".join([header, *rows]))
    with pytest.raises(UserError) as error:
        read_deployments(path)
    assert error.value.code == "E_BAD_DEPLOYMENT"
    assert error.value.what.startswith(f"{path}:{1 + len(rows)}: ")
    assert value in error.value.what


def test_table_without_positions_is_refused(tmp_path):
    with pytest.raises(UserError) as error:
        read_deployments(write(tmp_path, "site,lat\na,1\n"))
    assert error.value.code == "E_MISSING_COLUMN"
    assert "site, lat" in error.value.what
    assert "'longitude'" in error.value.remedy


def test_deployment_is_found_by_site_folder_or_position():
    bog, heath = Deployment("bog", 1.0, 1.0), Deployment("heath", 2.0, 2.0)
    deployments = Deployments({"bog": bog, "heath": heath})
    assert deployments.find("bog", ["heath"]) == bog
    assert deployments.find("S4A1", ["bog", "heath", "Data"]) == heath  # the innermost
    assert deployments.find(None, ["heath"]) == heath
    assert deployments.find(None, []) is None
    assert Deployments({"bog": bog}).find(None, []) == bog
    assert Deployments({"bog": bog}).find("S4A1", []) is None
    assert deployments.find("-3.100 170.250", []) == Deployment(
        "-3.100 170.250", -3.1, 170.25, None, 100
    )
    assert deployments.find("95.000 1.000", []) is None
