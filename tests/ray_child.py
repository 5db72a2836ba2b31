"""Workers of tests/test_cluster.py that misbehave; Ray imports them by name."""

import os
import signal
import time
from pathlib import Path

from antpitta.predict.cluster import PredictionWorker

LOG = "ANTPITTA_TEST_LOG"


class SlowWorker(PredictionWorker):
    """Takes its time, and logs the files that it begins with."""

    def _predict(self, rows):
        for row in rows:
            with Path(os.environ[LOG]).open("a") as lines:
                lines.write(f"{os.getpid()} {row['id']}\n")
            time.sleep(0.25)
        return super()._predict(rows)


class KilledWorker(PredictionWorker):
    """Is killed by one file, as by a fault in a decoder."""

    def _predict(self, rows):
        if any(row["id"].startswith("r05") for row in rows):
            os.kill(os.getpid(), signal.SIGKILL)
        return super()._predict(rows)
