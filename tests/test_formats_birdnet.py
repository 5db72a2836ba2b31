"""BirdNET-Analyzer's tables and review folders."""

from antpitta.core.types import Annotation
from antpitta.files.formats import read_table

CSV = "Start (s),End (s),Scientific name,Common name,Confidence,File\n"
RAVEN = (
    "Selection\tView\tChannel\tBegin Time (s)\tEnd Time (s)\tLow Freq (Hz)\tHigh Freq (Hz)"
    "\tCommon Name\tSpecies Code\tConfidence\tBegin Path\tFile Offset (s)\n"
)


def write(folder, name, text):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_detections_are_unknown_until_the_user_gives_a_verdict(tmp_path):
    text = CSV + "0.0,3.0,Turdus plumbeus,Red-legged Thrush,0.9132,/data/a.wav\n"
    path = write(tmp_path, "a.BirdNET.results.csv", text)
    table = read_table(path)
    assert (table.format, table.annotations, table.unvalidated) == ("birdnet", (), 1)
    annotation = Annotation("/data/a.wav", 0.0, 3.0, "Turdus plumbeus", False, score=0.9132)
    assert read_table(path, verdict=False).annotations == (annotation,)


def test_verdict_column_is_taken_row_by_row(tmp_path):
    text = CSV.replace("File", "File,Validated") + (
        "0,3,a,b,0.9,x.wav,1\n3,6,a,b,0.8,x.wav,0\n6,9,a,b,0.7,x.wav,\n"
    )
    table = read_table(write(tmp_path, "x.csv", text))
    assert [annotation.present for annotation in table.annotations] == [True, False]
    assert table.unvalidated == 1


def test_birdnets_raven_table_is_recognised_and_nocall_is_no_detection(tmp_path):
    rows = (
        "1\tSpectrogram 1\t1\t60\t63\t0\t15000\tRobin\trob\t0.8\tD:\\b.wav\t3\n"
        "2\tSpectrogram 1\t1\t0\t3\t0\t15000\tnocall\tnocall\t1.0\tD:\\c.wav\t0\n"
    )
    path = write(tmp_path, "BirdNET_SelectionTable.txt", RAVEN + rows)
    assert (read_table(path).format, read_table(path).unvalidated) == ("birdnet", 1)
    (annotation,) = read_table(path, verdict=True).annotations
    assert annotation == Annotation(r"D:\b.wav", 3.0, 6.0, "Robin", True, 0.0, 15000.0, score=0.8)


def test_birdnets_raven_table_without_rows_gives_no_annotation(tmp_path):
    table = read_table(write(tmp_path, "x.BirdNET.selection.table.txt", RAVEN))
    assert (table.annotations, table.unvalidated) == ((), 0)


def test_kaleidoscope_table_gives_folder_start_and_duration(tmp_path):
    text = (
        "INDIR,FOLDER,IN FILE,OFFSET,DURATION,scientific_name,common_name,confidence\n"
        "/data,north,a.wav,6.0,3.0,Turdus plumbeus,Thrush,0.5\n"
    )
    (annotation,) = read_table(write(tmp_path, "k.csv", text), verdict=True).annotations
    assert annotation == Annotation("/data/north/a.wav", 6.0, 9.0, "Turdus plumbeus", score=0.5)


def test_review_folder_gives_species_verdict_and_times(tmp_path):
    for name in (
        "Red Thrush/Positive/0.913_12_rec_9_20210315_053000_9.0s_12.0s.wav",
        "Red Thrush/Negative/0.250_1_rec_9_0.00s_3.00s.flac",
        "Red Thrush/Positive/holiday.wav",
        "Red Thrush/0.500_2_rec_9_3.0s_6.0s.wav",
        "Green Frog/Negative/0.1_3_rec_1_15_18.wav",
        "notes.txt",
    ):
        write(tmp_path, name, "")
    table = read_table(tmp_path)
    assert table.format == "birdnet_review"
    assert set(table.annotations) == {
        Annotation("rec_9_20210315_053000", 9.0, 12.0, "Red Thrush", True, score=0.913),
        Annotation("rec_9", 0.0, 3.0, "Red Thrush", False, score=0.25),
        Annotation("rec_1", 15.0, 18.0, "Green Frog", False, score=0.1),
    }
    assert table.unvalidated == 1
    (finding,) = table.findings
    assert finding.code == "W_CLIP_NAME"
    assert finding.file.endswith("holiday.wav")


def test_review_folder_of_one_species_takes_its_name(tmp_path):
    write(tmp_path, "Frog/Positive/0.9_1_r_0.0s_3.0s.wav", "")
    assert read_table(tmp_path / "Frog").annotations == (Annotation("r", 0, 3, "Frog", score=0.9),)
