"""What can be imported."""

from typing import Literal

ImportFormat = Literal["csv", "wandb", "tensorboard"]
