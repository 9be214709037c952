"""The audit log: who did what, from where, and what was refused."""
