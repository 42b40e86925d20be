"""Hand-off by services on the web: Frame.io and Descript, by own small HTTP clients."""
