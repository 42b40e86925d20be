"""Clips and characters that are used again and again: found by name, tag and word, with licence, consent and approval."""
