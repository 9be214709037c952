"""What the domains share: problems, pages, ids, downloads, drawing."""
