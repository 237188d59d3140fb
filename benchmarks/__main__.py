"""`python -m benchmarks`: see the package's docstring."""

from benchmarks._command import main

if __name__ == "__main__":
    raise SystemExit(main())
