"""The published `preprocess_data.py`, run by this engine: `python preprocess_data.py --help`."""

from wanimate.cli.compat import preprocess, script

if __name__ == "__main__":
    script(preprocess)
