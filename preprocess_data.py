"""The published `preprocess_data.py`, run by this engine: `python preprocess_data.py --help`."""

from wanimate.__main__ import main

if __name__ == "__main__":
    main("compat", "preprocess")
