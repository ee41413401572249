"""What each adjoint costs and how right it is: error, time, memory, convergence, the guard of reverse solves.

``python -m benchmarks.adjoints`` (from the repository's root) measures all and writes the tables of
docs/adjoints.md and its picture; with ``--quick`` a small part of it, to the terminal.
"""
