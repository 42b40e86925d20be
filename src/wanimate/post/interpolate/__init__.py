"""Another rate: frames between frames, by a network, by flow, or plainly."""
