"""How many examples hypothesis tries: 200 each by default, always the same ones; HYPOTHESIS_PROFILE=soak tries 20,000
new ones."""

import os

from hypothesis import HealthCheck, settings

COMMON = {
    "deadline": None,
    "database": None,
    "suppress_health_check": [HealthCheck.too_slow, HealthCheck.data_too_large],
}

settings.register_profile("default", max_examples=200, derandomize=True, **COMMON)
settings.register_profile("soak", max_examples=20_000, **COMMON)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))
