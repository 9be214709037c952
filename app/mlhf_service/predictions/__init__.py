"""Predictions with trained models, in processes of their own."""
