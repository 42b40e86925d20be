"""A larger size: networks that enlarge, their detail mixed with a plain filter and held steady in time."""
