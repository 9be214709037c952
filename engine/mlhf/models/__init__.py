"""Networks: specifications that need no torch, and the modules built from them."""
