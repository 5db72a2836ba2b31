"""The benchmark of the review page times every step in a browser."""

from benchmarks.review import benchmark_review
from tests.browser import find_chromium


def test_every_step_is_timed_and_verdicts_include_the_thought(tmp_path):
    find_chromium()
    table = benchmark_review(tmp_path, candidates=300, verdicts=3, think=0.2).table
    steps = table.set_index("step")["median (ms)"].astype(int)
    assert steps["a verdict, with 0.2 s of thought"] >= 200
    assert 0 < steps["first page, in other browsers"] < 20_000
    assert table.set_index("step").loc["a verdict, with no thought", "times"] == "3"
    assert len(table) == 15
