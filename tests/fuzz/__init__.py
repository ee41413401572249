"""A differential fuzzer: drawn problems, faces, options and gradients against solutions known beforehand.

`python -m tests.fuzz --seed S --cases N` runs N cases and counts those that are right, refused, wrong
and crashed; `--case K` runs one of them, shrinks it and shows what is wrong.
"""
