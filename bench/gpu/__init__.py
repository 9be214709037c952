"""What is measured on a GPU. ``bench/gpu.sh`` runs all of it within nine minutes."""
