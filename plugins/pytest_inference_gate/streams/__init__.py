"""Streams: frames with a clock of their own, from decoding to the answer, as cases beside those of single pictures."""
