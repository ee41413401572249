"""Measurements that anyone can repeat: ``python -m benchmarks`` (speed), ``.accuracy`` and ``.adjoints``."""

import time

BEGIN = time.monotonic()  # before torch is imported: `speed.timed` counts from here
