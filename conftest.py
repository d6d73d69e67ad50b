"""What the suite adds for this repository alone: the tests of the plugin start sessions of their own with ``pytester``."""

pytest_plugins = ["pytester"]
