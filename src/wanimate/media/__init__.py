"""Stage 1: checked inputs, frames as iterators with exact times, and the only resize maths."""
