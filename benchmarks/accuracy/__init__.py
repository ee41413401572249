"""How accurate the solvers are, and what an accuracy costs: measured against scipy and other libraries.

``python -m benchmarks.accuracy`` (from the repository's root) measures all and writes docs/accuracy.md.
"""
