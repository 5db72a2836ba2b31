"""Inputs on which a fuzz target (fuzz/) once failed, each with what it gives now."""

from antpitta.files.formats import read_table

ARBIMON = "recording,site,year,month,day,hour,min,species,x1,x2,y1,y2,frequency,validated\n"


def test_minute_of_arbimon_beyond_all_time_is_a_finding(tmp_path):
    path = tmp_path / "export.csv"
    rows = (
        f"S4A_20240501_050012.wav,a,2024,5,1,5,{'8' * 34},Coqui,1,2,100,2000,24000,present\n"
        "S4A_20240501_050012.wav,a,2024,5,1,25,0,Coqui,1,2,100,2000,24000,present\n"
        "S4A_20240501_050012.wav,a,2024,5,1,5,1,Coqui,1,2,100,2000,24000,present\n"
    )
    path.write_text(ARBIMON + rows)
    table = read_table(path)
    assert [(box.start, box.stop) for box in table.annotations] == [(61.0, 62.0)]
    assert [(f.code, f.row) for f in table.findings if f.serious] == [
        ("W_SLICE_CLOCK", 2),
        ("W_SLICE_CLOCK", 3),
    ]
