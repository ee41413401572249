"""Every combination of options of `solve`, held against a closed solution."""

import sys
from pathlib import Path

# What tests share, where it is not pytest that runs.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
