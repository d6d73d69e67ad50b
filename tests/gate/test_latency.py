"""Is the model still fast enough? The rounds were measured by the agent; pytest-benchmark sees them as they were."""


def test_latency(case, latency, benchmark):
    latency.replay_into(benchmark)
    latency.check()
