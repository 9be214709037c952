"""Gauss-Newton by dense matrices, and its peers for nonlinear least squares."""
