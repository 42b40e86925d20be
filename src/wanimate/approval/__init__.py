"""Whether a result may leave the house: consents, rules, the house's policy, and the gate that asks them."""
