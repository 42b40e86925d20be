"""Approvals over the service's database: the gate, what left through it, and what is to be taken back."""
