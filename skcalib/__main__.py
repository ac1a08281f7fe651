"""`python -m skcalib` is the `skcalib` command."""

from skcalib.cli import main

if __name__ == "__main__":
    main()
