"""The formats in which a data set of one's own is given. Imports nothing of the readers."""

from typing import Literal, get_args

# The families of mlhf.data.specs that read files a user brings.
UploadFormat = Literal["npz", "image_folder", "hf_images", "table", "text"]
UPLOAD_FORMATS: tuple[UploadFormat, ...] = get_args(UploadFormat)

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
TABLE_SUFFIXES = (".csv", ".tsv", ".parquet")
