"""A pytest plugin that tells whether an upgrade may ship: latency and accuracy of neural networks against stored baselines."""
