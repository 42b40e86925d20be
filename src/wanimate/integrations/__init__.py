"""Other programmes' ways in: diffusers, FLUX Kontext, and the published file names."""
