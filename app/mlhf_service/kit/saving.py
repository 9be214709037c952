"""Files that were sent, saved within a bound."""

from pathlib import Path

from fastapi import UploadFile

from mlhf_service.kit.problems import TooLarge

_CHUNK = 2**20


def save(file: UploadFile, path: Path, most: int, what: str) -> int:
    """Write a file that was sent to a path; returns its bytes.

    Raises:
        TooLarge: It has more than ``most`` bytes; ``what`` says what may not.
    """
    size = 0
    with path.open("wb") as out:
        while chunk := file.file.read(_CHUNK):
            size += len(chunk)
            if size > most:
                raise TooLarge(f"{what} has at most {most:,} bytes.")
            out.write(chunk)
    return size
