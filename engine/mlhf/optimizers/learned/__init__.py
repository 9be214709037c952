"""What all learned optimizers share."""
