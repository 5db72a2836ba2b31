"""Where sites lie: a table that is right, or a line that says what is wrong in it."""

from datetime import UTC, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest

from antpitta.core.errors import UserError
from antpitta.files.deployments import Deployment, Deployments, read_deployments


def written(tmp_path, text, encoding="utf-8"):
    path = tmp_path / "places.csv"
    path.write_bytes(text.encode(encoding))
    return path


def test_columns_are_known_by_name_in_any_order_and_encoding(tmp_path):
    text = "Lon;Lat;Site Name;TZ;Uncertainty\n-65.8;18.3;Río Abajo;-0430;99.6\n10;-1;x;;\n"
    found = read_deployments(written(tmp_path, text, "utf-16")).by_site
    west = timezone(-timedelta(hours=4, minutes=30))
    assert found == {
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
def test_a_zone_is_an_offset_or_a_name(tmp_path, text, zone):
    path = written(tmp_path, f"site,latitude,longitude,timezone\na,0,0,{text}\n")
    found = read_deployments(path).by_site["a"].zone
    summer = datetime(2025, 7, 1)
    assert summer.replace(tzinfo=found).utcoffset() == summer.replace(tzinfo=zone).utcoffset()


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("a,18°19',-65.8,,", r":2: \"18°19'\" is no latitude; write decimal degrees"),
        ("a,91,-65.8,,", "'91' is no latitude"),
        ("a,nan,-65.8,,", "'nan' is no latitude"),
        ("a,18.3,,,", "'' is no longitude"),
        ("a,18.3,-181,,", "'-181' is no longitude"),
        ("a,18.3,-65.8,America,", "'America' is no time zone"),
        ("a,18.3,-65.8,AST4,", "'AST4' is no time zone"),
        ("a,18.3,-65.8,+19:00,", r"'\+19:00' is no time zone"),
        ("a,18.3,-65.8,../../etc,", "is no time zone"),
        ("a,18.3,-65.8,,far", "'far' is no uncertainty"),
        ("a,18.3,-65.8,,inf", "'inf' is no uncertainty"),
        ("a,18.3,-65.8,,0", "'0' is no uncertainty"),
        (",18.3,-65.8,,", "names no site"),
        ("a,1,1,,\na,1,1,,", ":3: site 'a' stands twice"),
    ],
)
def test_a_wrong_row_is_named(tmp_path, row, said):
    path = written(tmp_path, f"site,latitude,longitude,timezone,uncertainty\n{row}\n")
    with pytest.raises(UserError, match=said):
        read_deployments(path)


def test_a_table_without_positions_is_refused(tmp_path):
    with pytest.raises(UserError, match="needs a column 'longitude'; it has site, lat"):
        read_deployments(written(tmp_path, "site,lat\na,1\n"))


def test_a_site_is_found_by_its_name_its_folder_or_its_own_position():
    one, two = Deployment("one", 1.0, 1.0), Deployment("two", 2.0, 2.0)
    deployments = Deployments({"one": one, "two": two})
    assert deployments.find("one", ["two"]) == one
    assert deployments.find("S4A1", ["one", "two", "Data"]) == two  # the innermost
    assert deployments.find(None, ["two"]) == two
    assert deployments.find(None, []) is None
    assert Deployments({"one": one}).find(None, []) == one
    assert Deployments({"one": one}).find("S4A1", []) is None
    assert deployments.find("-3.100 170.250", []) == Deployment(
        "-3.100 170.250", -3.1, 170.25, None, 100
    )
    assert deployments.find("95.000 1.000", []) is None
