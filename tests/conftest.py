"""What holds for every test: properties are judged by what is true, not by how busy the machine is."""

import os

from hypothesis import HealthCheck, settings

settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")

# As the engine does for itself: threads that spin while they wait for each other take the processor from all others.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
