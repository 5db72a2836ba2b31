"""Arbimon's one-minute slices, put back on the clock of the file that was uploaded.

A long upload is stored as slices of a minute. Each row repeats the uploaded file's name but
tells its times from its own slice's start, and only the row's date, hour and minute say
which slice that was. So a row's box is moved by (the row's time - the start in the file's
name). What a reader would question:

- The export's times have no seconds. A file that began at 05:30:12 has its slices at 05:30:12,
  05:31:12, ..., listed as 05:30, 05:31, ...: the name's seconds are dropped before the
  subtraction, which keeps the shift whole minutes, and that is reported.
- A row before its file's start has crossed midnight (a table may repeat the file's own date)
  if that puts it less than twelve hours in; else its clock is another one (a time zone), and
  the row is left out rather than put in a wrong place.
- A name without a time cannot tell. If all its rows are of one minute, they are taken as one
  recording that begins there; if not, the file was sliced and its rows are left out.
"""

import numpy as np
import pandas as pd

from antpitta.files.filenames import start_from_name
from antpitta.files.formats.sheet import Sheet

_HALF_DAY, _DAY, _HOUR = 43_200.0, 86_400.0, 3_600.0


def slice_starts(
    sheet: Sheet, recording: np.ndarray, moment: pd.Series, to_the_minute: bool
) -> np.ndarray:
    """Where each row's slice begins, in seconds on its file's own clock.

    ``moment`` is each row's time (NaT: none); rows without one, in files with one, stay
    where they are and are reported. ``to_the_minute``: the moments lack seconds.
    """
    when = pd.to_datetime(moment.reset_index(drop=True)).astype("datetime64[us]")
    names = pd.Series(recording)
    began = names.map({name: start_from_name(name) for name in set(recording)})
    began = pd.to_datetime(began).astype("datetime64[us]")
    seconds = began.dt.second.to_numpy() > 0
    if to_the_minute:
        began = began.dt.floor("min")
    shift = (when - began).dt.total_seconds().to_numpy()
    shift = np.where((shift < 0) & (shift + _DAY < _HALF_DAY), shift + _DAY, shift)
    sheet.complain(
        (shift < 0) | (shift >= _DAY),
        lambda i: f"the row is of {when[i]}, which is not in {names[i]}",
        "bring the file's name and the row to one time zone",
    )
    if to_the_minute:
        _note_count(
            sheet,
            names[seconds & (shift > 0)],
            "{} began between two minutes by the name, and the table tells whole minutes:"
            " slices are taken to follow every 60 s from the file's start",
            "compare one box with the sound",
        )
    _odd(sheet, names, when, began, shift)
    return np.where(np.isnan(shift), 0.0, shift)


def _odd(
    sheet: Sheet, names: pd.Series, when: pd.Series, began: pd.Series, shift: np.ndarray
) -> None:
    """Reports what the shift alone does not settle."""
    nameless = began.isna() & when.notna()
    moments = when.where(nameless).groupby(names).transform("nunique")
    sliced = (nameless & (moments > 1)).to_numpy()
    sheet.complain(
        sliced,
        lambda i: f"{names[i]} was sliced into minutes, and its name does not tell its start",
        "put the start into the name, like site_20210315_053000.wav, here and in the audio",
    )
    _note_count(
        sheet,
        names[nameless & ~sliced],
        "{} without a time in the name and with rows of one minute only: taken as whole, not as"
        " a slice of something longer",
        "check that they are at most a minute long",
    )
    _note_count(
        sheet,
        names[began.notna() & when.isna()],
        "{} with rows without a time: their boxes are taken as seconds from the file's start",
        "fill in hour and minute",
    )
    _note_count(
        sheet,
        names[np.nan_to_num(shift % 60.0) > 0],
        "{} with slices that do not begin whole minutes into the file: moved by the time told",
        "compare with the sound",
    )
    if len(shift) and np.nanmin(shift, initial=np.inf) >= _HOUR and not np.isnan(shift).all():
        sheet.note(
            "every row lies an hour or more into its file: names and rows may be in two time zones",
            "compare one box with the sound",
        )


def _note_count(sheet: Sheet, names: pd.Series, what: str, remedy: str) -> None:
    """One finding about all these recordings, which names the first."""
    if count := names.nunique():
        sheet.note(what.format(f"{count} recording(s), such as {names.iloc[0]},"), remedy)
