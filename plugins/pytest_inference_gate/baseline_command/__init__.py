"""``inference-gate baseline``: what is done with saved sessions beside a run."""
