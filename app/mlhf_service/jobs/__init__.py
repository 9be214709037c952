"""Jobs: what users ask for."""
