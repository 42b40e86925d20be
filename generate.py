"""The published `generate.py`, run by this engine: `python generate.py --help`."""

from wanimate.__main__ import main

if __name__ == "__main__":
    main("compat", "generate")
