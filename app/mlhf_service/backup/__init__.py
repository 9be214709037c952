"""Back up and restore the whole service: the database's rows and the files they name."""
