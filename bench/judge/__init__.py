"""The judging protocol: every optimizer tuned by the same budget, judged on other seeds."""
