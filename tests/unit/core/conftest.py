"""Settings of the core tests."""

from hypothesis import settings

# The machine may be busy; how long an example takes is no property.
settings.register_profile("no-deadline", deadline=None)
settings.load_profile("no-deadline")
