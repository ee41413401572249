"""``python -m benchmarks``: the speed of gradients, see `benchmarks.speed`."""

from .speed.command import main

if __name__ == "__main__":
    raise SystemExit(main())
