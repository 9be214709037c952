"""Ablations: forms of solving, measured along trajectories of training (paper, section 6.3)."""
