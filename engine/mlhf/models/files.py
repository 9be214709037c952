"""A trained model as two files: model.safetensors and model.json. No pickle."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from mlhf.core.config import Component
from mlhf.core.errors import DataError, SpecError
from mlhf.data.info import DataInfo
from mlhf.models.build import build
from mlhf.models.inputs import images, rows
from mlhf.models.loss import LossName

WEIGHTS, DESCRIPTION = "model.safetensors", "model.json"

_FORMAT = 1


def save_model(
    folder: str | Path,
    module: nn.Module,
    model: Component,
    info: DataInfo,
    preprocessing: Mapping[str, Any],
    loss: LossName,
) -> None:
    """Write the two files into an existing folder."""
    folder = Path(folder)
    # Copies, as safetensors refuses tensors that share memory (a GPU's LSTM weights do).
    weights = {
        name: tensor.detach().to("cpu", copy=True).contiguous()
        for name, tensor in module.state_dict().items()
    }
    save_file(weights, folder / WEIGHTS)
    description = {
        "format": _FORMAT,
        "model": model.model_dump(mode="json"),
        "data": info.to_dict(),
        "preprocessing": dict(preprocessing),
        "loss": loss,
    }
    (folder / DESCRIPTION).write_text(json.dumps(description, indent=2, allow_nan=False) + "\n")


@dataclass(frozen=True)
class LoadedModel:
    """A trained model, in evaluation mode on the CPU.

    Attributes:
        module: From preprocessed inputs to outputs.
        model: Name and parameters it was built from.
        info: The data it was trained on.
        preprocessing: What the training data went through.
    """

    module: nn.Module
    model: Component
    info: DataInfo
    preprocessing: dict[str, Any]
    loss: LossName

    def __call__(self, inputs: Any) -> Tensor:
        """Return the module's outputs for raw inputs (see ``prepare``)."""
        with torch.no_grad():
            outputs: Tensor = self.module(self.prepare(inputs))
        return outputs

    def predict(self, inputs: Any) -> Tensor:
        """Return predictions for raw inputs.

        Returns:
            Classification: labels (B,); see also ``predict_names``. Several labels a sample: 0 or
            1 for each, (B, K); the sigmoid of the model's outputs are probabilities. Text: the
            most likely next token after each character, (B, T). Regression: values (B, K) in the
            targets' own units.
        """
        outputs = self(inputs)
        if self.info.task == "multilabel":
            return (outputs > 0).to(torch.int64)
        if self.info.task != "regression":
            return outputs.argmax(-1)
        mean = torch.tensor(self.preprocessing["target_mean"])
        return outputs * torch.tensor(self.preprocessing["target_std"]) + mean

    def predict_names(self, inputs: Any) -> list[str]:
        """Return the name of each input's class: its number where the data set has no names.

        Raises:
            DataError: The model is not a classifier, or as ``prepare``.
        """
        if self.info.task != "classification":
            raise DataError(f"a model of {self.info.task} has no classes; use predict")
        names = self.info.class_names or tuple(map(str, range(self.info.outputs)))
        return [names[label] for label in self.predict(inputs).tolist()]

    def prepare(self, inputs: Any) -> Tensor:
        """Return raw inputs as the module takes them.

        Args:
            inputs: What the data set's files hold. Images: arrays (B, C, H, W), (B, H, W, C) or
                of one channel (B, H, W), in the units of the training files (0 to 255 for
                decoded images); or encoded images, paths, or Pillow's images. Tables: a
                DataFrame, rows as mappings from column names to values or as sequences of the
                columns' values, or encoded columns (B, F). Texts: strings of one length, or
                tokens (B, T).

        Raises:
            DataError: The inputs are not of this form, or hold NaN or infinite values.
        """
        if self.info.kind == "text":
            return self._tokens(inputs)
        shape = self.info.input_shape
        if self.info.kind == "table":
            inputs = rows(inputs, self.preprocessing.get("columns"))
        elif len(shape) == 3:
            inputs = images(inputs, (shape[0], shape[1], shape[2]), self.preprocessing)
        try:
            values = torch.as_tensor(inputs).to(torch.float64)
        except (TypeError, ValueError, RuntimeError) as error:
            raise DataError(f"the inputs are no numbers: {str(error)[:200]}") from None
        if values.shape[1:] != shape:
            needed = ", ".join(map(str, ("B", *shape)))
            raise DataError(f"inputs of shape {tuple(values.shape)}; needed: ({needed})")
        if not values.isfinite().all():
            raise DataError("the inputs hold NaN or infinite values")
        column = (-1, *(1,) * (values.ndim - 2))
        mean, std = (
            torch.tensor(self.preprocessing[key], dtype=torch.float64).reshape(column)
            for key in ("mean", "std")
        )
        return ((values - mean) / std).to(torch.float32)

    def _tokens(self, inputs: Any) -> Tensor:
        texts = [inputs] if isinstance(inputs, str) else inputs
        if isinstance(texts, Sequence) and texts and isinstance(texts[0], str):
            token = {c: i for i, c in enumerate(self.preprocessing["characters"])}
            unknown = sorted({c for text in texts for c in text} - set(token))
            if unknown:
                raise DataError(f"characters the model has never seen: {unknown[:20]}")
            if len({len(text) for text in texts}) > 1:
                raise DataError("texts of one batch must have one length")
            texts = [[token[c] for c in text] for text in texts]
        tokens = torch.as_tensor(texts).to(torch.int64)
        if tokens.ndim != 2 or tokens.numel() == 0:
            raise DataError("texts must be non-empty strings, or tokens of shape (B, T)")
        if tokens.min() < 0 or tokens.max() >= self.info.outputs:
            raise DataError(f"tokens must lie between 0 and {self.info.outputs - 1}")
        return tokens


def load_model(folder: str | Path) -> LoadedModel:
    """Read a model that ``save_model`` wrote.

    Raises:
        DataError: A file is missing or broken, or the two do not fit together.
    """
    folder = Path(folder)
    try:
        described = json.loads((folder / DESCRIPTION).read_text())
        if described["format"] != _FORMAT:
            raise DataError(f"{DESCRIPTION}: format {described['format']!r} is not known")
        model = Component.model_validate(described["model"])
        info = DataInfo.from_dict(described["data"])
        module = build(model.name, model.params, info, seed=0)
        module.load_state_dict(load_file(folder / WEIGHTS))
        preprocessing, loss = described["preprocessing"], described["loss"]
    except FileNotFoundError as error:
        raise DataError(f"{Path(error.filename or WEIGHTS).name} is missing") from None
    except DataError:
        raise
    except (
        KeyError,
        TypeError,
        ValueError,
        ValidationError,
        SpecError,
        RuntimeError,
        SafetensorError,
    ) as error:
        raise DataError(f"the model's files are broken: {str(error)[:300]}") from None
    return LoadedModel(module.eval(), model, info, preprocessing, loss)
