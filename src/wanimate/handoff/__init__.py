"""Hand-off: results leave the house for review and editing, as a folder or by a service on the web."""
