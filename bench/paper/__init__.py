"""The paper's experiments (arXiv 1805.08462, section 6), each a command that can resume."""
