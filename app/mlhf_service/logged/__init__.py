"""Runs that are trained elsewhere: logged by a loop of the user's own, or imported."""
