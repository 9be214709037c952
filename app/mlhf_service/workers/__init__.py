"""The workers of a deployment: who is there, what each does, and whether it is fit to."""
