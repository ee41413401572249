"""A differential fuzzer: drawn problems, faces, options and gradients against solutions known beforehand.

`python -m tests.fuzz --seed S --cases N` runs N cases and counts those that are right, refused, wrong
and crashed; `--case K` runs one of them, shrinks it and shows what is wrong.
"""

import sys
from pathlib import Path

# What tests share, where it is not pytest that runs.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
