"""The baseline stage of `train --baseline`: it changes no score of the other stages."""

import pytest
import torch

import antpitta as ap
from antpitta.files.own_files import load_tensors
from antpitta.files.recipes import read_recipe
from antpitta.train.stages import first_stage_number


def test_seeds_of_stages_do_not_depend_on_the_baseline():
    plain, compared = read_recipe("quick"), read_recipe("quick", baseline=True)
    assert first_stage_number(plain) == first_stage_number(compared) + 1 == 1


@pytest.mark.timeout(120)
def test_baseline_changes_no_weight_of_the_other_stages(tmp_path, simulated, write_network):
    write_network(tmp_path / "a.onnx", bands=64, floor=0.0)
    changes = (
        f"embedding.model={tmp_path / 'a.onnx'}",
        *("embedding.sample_rate=16000", "embedding.seconds=1.0", "embedding.step=0.25"),
        *(
            "windows.frames=40",
            "folds=2",
        ),
    )
    data = ap.open_data(simulated)
    plain = ap.train(data, "embedding", tmp_path / "plain", changes=changes)
    compared = ap.train(data, "embedding", tmp_path / "with", changes=changes, baseline=True)
    names = [stage.name for stage in compared.run_report.stages]
    assert names == ["unknown_as_absent", "masked"]
    for fold in (0, 1):
        file = f"stages/masked/fold{fold}.safetensors"
        (first, _), (second, _) = (load_tensors(run.path / file) for run in (plain, compared))
        assert all(torch.equal(first[name], second[name]) for name in first)
