"""The result of predict_to: the tables of an output folder, read when they are asked for.

What reads tables (pandas, pyarrow) is imported where it is used, as in prediction.py.
"""

import io
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

    from antpitta.predict.tables import TableCounts

SUBMISSION = "submission.csv"
TEXT_ID = {"recording_id": str}


@dataclass(frozen=True)
class Prediction:
    """What ``predict_to`` wrote; the tables are read from the folder when asked for.

    Parameters
    ----------
    path : the output folder, or its local copy where the output is a URL
    counts : recordings with scores, events, and quarantined files
    notes : what else a user should know
    filled : recordings of the submission without scores; they have the mean of each species
    """

    path: Path
    counts: "TableCounts"
    notes: tuple[str, ...] = ()
    filled: tuple[str, ...] = ()

    @cached_property
    def presence(self) -> "pd.DataFrame":
        """One row per recording: recording_id, then one score per species.

        A species that was not learnable has NaN.
        """
        return _read(self.path / "presence.csv", TEXT_ID, blank=[""])

    @cached_property
    def events(self) -> "pd.DataFrame":
        """One row per event: file, site, start_time, end_time, clock_time, low_freq, high_freq,
        species, score, model, support, verdict.

        Raises
        ------
        UserError
            ``E_NO_EVENT_TABLE`` if events were written neither as csv nor as parquet.
        """
        from antpitta.predict.exports import read_events

        return read_events(self.path)

    @cached_property
    def quarantine(self) -> "pd.DataFrame":
        """Rows file, reason: files without scores, or with scores of a part."""
        return _read(self.path / "quarantine.csv", str)

    @cached_property
    def submission(self) -> "pd.DataFrame":
        """The rows and columns of the sample with scores; no rows without a sample."""
        path = self.path / SUBMISSION
        return _read(path if path.is_file() else io.StringIO("recording_id\n"), TEXT_ID)

    @cached_property
    def unplaced(self) -> "pd.DataFrame":
        """Rows file, reason: recordings that are not in the Camtrap DP; no rows without one."""
        from antpitta.predict.camtrapdp import UNPLACED

        path = self.path / UNPLACED
        return _read(path if path.is_file() else io.StringIO("file,reason\n"), str)


def _read(table: Path | io.StringIO, types: Any, blank: list[str] | None = None) -> "pd.DataFrame":
    import pandas as pd

    return pd.read_csv(table, dtype=types, keep_default_na=False, na_values=blank)
