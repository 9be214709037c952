"""The kinds of jobs, one file each. ``registry`` lists them, and says how one is added."""
