"""Finishing of pictures: a larger size, another rate. Works between decoder and writer, and on a file alone."""
