"""The numbers we state, each printed by a script here. Not in the wheel."""
