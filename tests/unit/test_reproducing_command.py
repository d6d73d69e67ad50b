"""The command that a failing test gives for running its case again."""

import pytest

from pytest_inference_gate.gate_session import reproducing_command


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "pytest --gate-select=a-b"),
        (["-m", "cpu", "--benchmark-compare"], "pytest -m cpu --benchmark-compare --gate-select=a-b"),
        (["--gate-select=x*", "--gate-json=out.json", "-q"], "pytest -q --gate-select=a-b"),
        (["--gate-select", "x*", "-q"], "pytest -q --gate-select=a-b"),
        (["--benchmark-autosave", "tests"], "pytest tests --gate-select=a-b"),
        (["--benchmark-save", "name", "tests"], "pytest tests --gate-select=a-b"),
        (["--benchmark-save=name", "tests"], "pytest tests --gate-select=a-b"),
        (["-k", "slow or latency"], "pytest -k 'slow or latency' --gate-select=a-b"),
        (["--gate-json", "a", "--gate-select", "b", "-x"], "pytest -x --gate-select=a-b"),
    ],
)
def test_it_selects_the_case_alone_and_writes_nothing(arguments, expected):
    assert reproducing_command(arguments, "a-b") == expected
