"""The file formats of data sets that users bring. Imports no reader."""

from typing import Literal, get_args

# The families of mlhf.data.specs that read files a user brings.
UploadFormat = Literal["npz", "image_folder", "hf_images", "table", "text", "coco"]
UPLOAD_FORMATS: tuple[UploadFormat, ...] = get_args(UploadFormat)

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
TABLE_SUFFIXES = (".csv", ".tsv", ".parquet")
