"""What the processes of tests/test_journal.py do; they import it by name.

The server that they are forked from has loaded the model already, so that fifty of them take
seconds. Everything after that, the journal, the hearing and the tables, is each one's own.
"""

import os
import time
from functools import cache
from pathlib import Path

import torch

from antpitta.api import predict_to
from antpitta.api import prediction as means
from antpitta.files.bundle import read_bundle
from antpitta.model.inference import InferenceConfig
from antpitta.predict import pipeline as archive_predict
from antpitta.predict.predictor import Predictor, resolve_precision

MODEL = "ANTPITTA_TEST_MODEL"
PACE = 0.02  # seconds a file: else all are heard before anybody can strike


@cache
def choir():
    bundle = read_bundle(Path(os.environ[MODEL]))
    return Predictor(
        bundle, InferenceConfig(precision=resolve_precision("auto", "full", bundle), workers=2)
    )


if MODEL in os.environ:
    torch.set_num_threads(1)  # a second thread would not live through the fork
    choir()


def listen(model, archive, out, log):
    """One run that notes every file it begins to hear."""
    plain = archive_predict.predict_files

    def noted(files):
        for file in files:
            with Path(log).open("a") as note:
                note.write(f"{file.id}\n")
            time.sleep(PACE)
            yield file

    def noting(choir, files):
        return plain(choir, noted(files))

    archive_predict.predict_files = noting
    if MODEL in os.environ:
        means.Predictor = lambda bundle, hearing: choir()
    predict_to(model, [archive], out, formats=("csv", "parquet"), resume=True)
