"""Size and channels of images, where the files do not hold what they promise."""

import pytest

from mlhf.core.errors import DataError
from mlhf.data.image_size import checked
from mlhf.data.params import HfImagesParams


def test_files_without_an_image_are_refused() -> None:
    with pytest.raises(DataError, match="no image"):
        checked(HfImagesParams(), 8, iter([]), 3, [])
