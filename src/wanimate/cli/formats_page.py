"""The table of formats in docs/finishing.md: `python -m wanimate.cli.formats_page` prints it."""

from __future__ import annotations

from wanimate.config import FORMATS
from wanimate.config.codecs import Format

_HEAD = ("`codec`", "format", "names", "`depth`", "colour", "alpha", "sizes")


def table() -> str:
    """Markdown."""
    rows = [_HEAD, ("---",) * len(_HEAD)]
    for codec, one in FORMATS.items():
        names = ", ".join(f"`{ending}`" for ending in one.endings) if not one.is_folder else "a folder"
        depths = ", ".join(f"**{bits}**" if bits == one.usual_depth() else str(bits) for bits in sorted(one.pixels))
        rows.append(
            (f"`{codec}`", one.title, names, depths, _colour(codec, one), ", ".join(one.alphas) or "no", _sizes(one))
        )
    return "\n".join(f"| {' | '.join(row)} |" for row in rows) + "\n"


def _colour(codec: str, one: Format) -> str:
    if codec == "exr":
        return "RGB, light, 16-bit floats"
    return "RGB, full range" if one.subsampling == "RGB" else f"{one.subsampling}, limited range"


def _sizes(one: Format) -> str:
    across, down = one.even
    least = "" if one.least == (2, 2) else f"; from {one.least[0]}x{one.least[1]}"
    even = "even width and height" if down == 2 else "even width" if across == 2 else "any"
    return ("any; odd ones in 4:4:4" if one.odd else even) + least


if __name__ == "__main__":
    print(table(), end="")
