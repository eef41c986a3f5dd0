"""Settings of the whole test run."""

import os

# Idle OpenMP threads sleep instead of spinning: pytest-xdist's processes share the cores, and the tests take a third
# of the time. OpenMP reads this once, when torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
