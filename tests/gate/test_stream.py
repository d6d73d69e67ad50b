"""Is a stream of frames still fast enough, from decoding to the answer? Only cards with a ``[stream]`` table are streams too."""


def test_stream(case, stream, benchmark):
    stream.replay_into(benchmark)
    stream.check()
