"""Workers of tests/test_cluster.py that do more than they should; Ray imports them by name."""

import os
import signal
import time
from pathlib import Path

from antpitta.predict.cluster import PredictionWorker

LOG = "ANTPITTA_TEST_LOG"


class Slow(PredictionWorker):
    """Takes its time, and notes what it begins."""

    def _hear(self, rows):
        for row in rows:
            with Path(os.environ[LOG]).open("a") as note:
                note.write(f"{os.getpid()} {row['id']}\n")
            time.sleep(0.25)
        return super()._hear(rows)


class Poisoned(PredictionWorker):
    """Is killed by one file, as a decoder with a hole in it would be."""

    def _hear(self, rows):
        if any(row["id"].startswith("r05") for row in rows):
            os.kill(os.getpid(), signal.SIGKILL)
        return super()._hear(rows)
