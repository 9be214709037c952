"""Rules by which what has ended is deleted or archived after a while."""
