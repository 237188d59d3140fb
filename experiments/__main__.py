"""`python -m experiments`: see the package's docstring."""

from experiments._runner import main

if __name__ == "__main__":
    raise SystemExit(main())
