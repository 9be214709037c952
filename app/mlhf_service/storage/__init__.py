"""Where artifacts are stored: a folder, or a bucket of an S3-compatible server."""
