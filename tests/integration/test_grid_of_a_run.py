"""A whole session that ends with the grid: what the experiment found stands in it, on a clock that was recorded."""

import pytest


@pytest.fixture
def two_models(linear_project, monkeypatch):
    """One that int8 wrecks, and whose int8 does not thread; and one without either."""
    monkeypatch.setattr("pytest_inference_gate.machine.condition.is_disturbed", lambda *_: False)
    gains = {"fp32": {"2": 1.8}, "int8": {"2": 1.02}}
    linear_project.record([0.01], gains=gains, wrecked=["int8"])
    linear_project.record([0.02], model="spared", gains={precision: {"2": 1.7} for precision in gains})
    for name in ("linear", "spared"):
        linear_project.write_card(name, precisions=["fp32", "int8"], extra='[limits]\nthread_speedup = { "2" = 1.3 }')
    return linear_project


def test_what_wrecks_a_model_and_what_does_not_thread_stand_out(two_models):
    arguments = ("--gate-threads=1,2", "--gate-replicates=1", "--gate-table=grid")
    result, document = two_models.gate_json(*arguments, "--benchmark-save=before")
    assert result.ret == 1
    verdicts = {case["id"]: case["verdict"] for case in document["cases"]}
    assert verdicts == {
        "linear-linear-fp32-b1-t1": "pass",
        "linear-linear-fp32-b1-t2": "pass",
        "linear-linear-int8-b1-t1": "inaccurate",
        "linear-linear-int8-b1-t2": "inaccurate",
        **{f"spared-linear-{precision}-b1-t{threads}": "pass" for precision in ("fp32", "int8") for threads in (1, 2)},
    }
    (limited,) = document["cases"][3]["limits"]
    assert limited["exceeded"] and limited["found"] == pytest.approx(1.02)
    result.stdout.fnmatch_lines(
        [
            "8 cases of 2 models on *",
            "linear, in float top-1 100.00 %",
            "precision *t1 *t2 *t2  verdict",
            "fp32 *100.00 *0.00 *10.0 *5.56  x1.80  pass",
            "int8 *x1.02  inaccurate",
            "- int8: top-1 1.000 -> 0.*; the other one loses nothing",
            "- int8: 2 threads are no faster than 1 (x1.02); the other one gains x1.80",
            "spared, in float *",
            "int8 *x1.70  pass",
            "int8 wrecks linear (top-1 1.000 -> 0.*), and spares spared",
        ]
    )
    assert "over limit: its threads make it 1.02 times as fast as one (2 threads)" in result.stdout.str()

    result = two_models.run(*arguments, "--benchmark-compare", "--gate-select=*-fp32-*")
    result.stdout.fnmatch_lines(
        ["4 cases of 2 models on *", "*t1 *t1 *t2 *verdict", "*median  change *gain  change*", "fp32 *x1.80 *pass"]
    )
