"""MLHF in a Kronecker eigenbasis: the default variant."""
