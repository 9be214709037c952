"""K-FAC."""
