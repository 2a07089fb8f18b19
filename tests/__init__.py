"""mailplat's tests."""

from hypothesis import HealthCheck, settings

# How long an example takes says more of the machine's other work than of ours, which is what
# time bounds of their own are for.
settings.register_profile("mailplat", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("mailplat")
