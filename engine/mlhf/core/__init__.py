"""What every part of the library stands on. Needs no torch, but for nothing here."""
