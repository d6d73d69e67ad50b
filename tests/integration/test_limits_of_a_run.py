"""Whole sessions of a card with limits: recorded, compared, promoted, without latency, and by number of threads."""

CASE = "linear-linear-fp32-b1-t1"
TOO_LARGE = "[limits]\nsize_bytes = 1\nmedian_seconds = 60"


def test_a_case_over_its_limit_fails_its_latency_test_and_is_no_baseline(linear_project):
    linear_project.write_card(extra=TOO_LARGE)
    result, document = linear_project.gate_json("--benchmark-save=before", "--gate-replicates=1")
    assert result.ret == 1
    result.assert_outcomes(passed=1, failed=1)
    (case,) = document["cases"]
    assert case["verdict"] == "over_limit"
    assert [(limit["name"], limit["exceeded"]) for limit in case["limits"]] == [("size_bytes", True), ("median_seconds", False)]
    result.stdout.fnmatch_lines(
        [
            f"{CASE} is over limit: the model takes * kB, and the card allows at most 1 bytes",
            "  size_bytes *at most 1 bytes   <-- exceeded",
            "  next: a limit is the card's own*",
            f"not saved, since they failed: {CASE}",
            f"{CASE}: over_limit: the model takes *",
            "*1 over limit: do not ship",
        ]
    )
    assert not linear_project.sessions()


def test_it_is_no_candidate_either_and_a_slow_down_is_told_beside_it(linear_project):
    linear_project.save()
    linear_project.scale_baseline(1 / 1000)
    linear_project.write_card(extra=TOO_LARGE)
    result, document = linear_project.gate_json("--benchmark-compare", "--benchmark-save=after")
    assert result.ret == 1
    assert document["cases"][0]["verdict"] == "over_limit"
    assert document["cases"][0]["latency"]["verdict"] == "slower"
    result.stdout.fnmatch_lines([f"{CASE} is over limit: *", f"{CASE} is slower: *"])
    assert not linear_project.candidates()


def test_without_latency_the_accuracy_s_test_fails(linear_project):
    linear_project.write_card(extra=TOO_LARGE)
    result = linear_project.run("-k", "accuracy")
    assert result.ret == 1
    result.assert_outcomes(failed=1, deselected=1)
    result.stdout.fnmatch_lines([f"{CASE} is over limit: *"])


def test_the_speed_up_of_threads_needs_the_case_with_one(linear_project):
    linear_project.write_card(extra='[limits]\nthread_speedup = { "2" = 0.001, "3" = 5.0 }')
    result, document = linear_project.gate_json("--gate-threads=1,2,3", "--gate-replicates=1", "-k", "latency")
    one, two, three = document["cases"]
    assert (one["thread_speedup"], one["limits"]) == (None, [])
    assert two["thread_speedup"] > 0
    assert [case["verdict"] for case in document["cases"]] == ["pass", "pass", "over_limit"]
    assert three["limits"][0]["found"] == three["thread_speedup"]
    result.assert_outcomes(passed=2, failed=1, deselected=3)

    result, document = linear_project.gate_json("--gate-threads=2", "--gate-replicates=1", "-k", "latency")
    assert document["cases"][0]["verdict"] == "over_limit"
    result.stdout.fnmatch_lines(["*the same case with one thread is not in this run: add it with --gate-threads=1,2*"])
