"""The published `generate.py`, run by this engine: `python generate.py --help`."""

from wanimate.cli.compat import generate, script

if __name__ == "__main__":
    script(generate)
