"""What holds for all tests of properties."""

from hypothesis import HealthCheck, settings

# How long an example takes says more of what else runs on this machine than of the example.
settings.register_profile("any_machine", settings.default, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any_machine")
