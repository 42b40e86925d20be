"""The adoption sheet: what was measured and found here, and what people still have to say."""
