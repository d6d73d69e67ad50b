"""Whole sessions whose rounds go through several pictures: saved, compared, in turns with another stack, and brought back by a bundle."""

import json

import pytest
from test_bundle import Bundles

SEVERAL = "[measuring]\npictures = {}\n"


def only_case(document):
    (case,) = document["cases"]
    return case


def test_saved_then_compared_and_never_with_another_number(linear_project):
    linear_project.write_card(extra=SEVERAL.format(7))
    linear_project.save("seven", "--gate-replicates=3")
    (session,) = linear_project.sessions()
    (benchmark,) = json.loads(session.read_text())["benchmarks"]
    block = benchmark["extra_info"]["inference_gate"]
    # The project asks for 20 rounds of a replicate: three cycles of seven pictures.
    assert block["pictures"] == len(block["picture_medians"]) == 7
    assert block["round_counts"] == [21] * 3 == [len(rounds) for rounds in block["rounds"]]
    assert benchmark["stats"]["rounds"] == 63  # pytest-benchmark has them one after the other

    result, document = linear_project.gate_json("--benchmark-compare", "--gate-replicates=3")
    latency = only_case(document)["latency"]
    assert (result.ret, latency["pictures"], len(latency["picture_medians"])) == (0, 7, 7)
    assert latency["baseline_pictures"] == pytest.approx(block["picture_medians"])
    assert latency["picture_spread"] >= 0
    result.stdout.fnmatch_lines(["*over*over*", "*pict. %*rounds %*", "*over pict., over rounds:*"])

    linear_project.write_card()
    result, document = linear_project.gate_json("--benchmark-compare", "--gate-replicates=3")
    assert (result.ret, only_case(document)["verdict"]) == (1, "no_baseline")
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(
        [
            "*linear-linear-fp32-b1-t1 has no baseline*: its rounds go through 1 picture in this run and went through 7 pictures in*"
        ]
    )


def test_more_pictures_than_the_evaluation_set_has(linear_project):
    linear_project.write_card(extra=SEVERAL.format(151))
    result, document = linear_project.gate_json()
    assert (result.ret, only_case(document)["outcome"]["kind"]) == (1, "fetch_error")
    result.stdout.fnmatch_lines(
        ["*measuring.pictures asks for rounds on 151 pictures, and the evaluation set has 150: lower it*"]
    )


def test_in_turns_and_by_a_bundle(linear_project):
    linear_project.write_card(extra=SEVERAL.format(7))
    other = linear_project.other_stack()
    result, document = linear_project.gate_json(f"--gate-against={other}", "--gate-replicates=3", "-k", "latency")
    latency = only_case(document)["latency"]
    assert only_case(document)["verdict"] == "pass", result.stdout.str()
    assert latency["rounds"] % 7 == 0
    assert len(latency["picture_medians"]) == len(latency["baseline_pictures"]) == 7

    target = Bundles(linear_project).export("--replicates=3").measured()
    result, document = linear_project.gate_json(target, "--gate-replicates=3")
    assert (result.ret, only_case(document)["latency"]["pictures"]) == (0, 7), result.stdout.str()
    linear_project.write_card(extra=SEVERAL.format(3))
    result, document = linear_project.gate_json(target, "--gate-replicates=3")
    assert result.ret == 1
    assert "was measured on another number of pictures: export the bundle again" in only_case(document)["outcome"]["message"]
