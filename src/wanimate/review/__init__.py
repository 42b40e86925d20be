"""Review: what people say of a shot's versions, and what they decide. Records, states and exports; no database, no engine."""
