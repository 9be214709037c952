"""What every package of the library builds on. Nothing here needs torch."""
