"""A trained model as two files: model.safetensors and model.json. No pickle."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
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
from mlhf.models.export import export
from mlhf.models.graph.module import GraphModule
from mlhf.models.graph.network import to_json
from mlhf.models.inputs import images, rows
from mlhf.models.predictions import predictions

WEIGHTS, DESCRIPTION = "model.safetensors", "model.json"

_FORMAT = 1


def save_model(
    folder: str | Path,
    module: nn.Module,
    model: Component,
    info: DataInfo,
    preprocessing: Mapping[str, Any],
    loss: str,
    loss_params: Mapping[str, Any] | None = None,
) -> None:
    """Write the two files into an existing folder.

    Args:
        folder: Where to.
        module: With the weights to keep.
        model: What it was built by.
        info: The data as the network fits it.
        preprocessing: What the training data went through.
        loss: Its name.
        loss_params: Its parameters.
    """
    folder = Path(folder)
    # Copies, as safetensors refuses tensors that share memory (a GPU's LSTM weights do).
    weights = {
        name: tensor.detach().to("cpu", copy=True).contiguous()
        for name, tensor in module.state_dict().items()
    }
    save_file(weights, folder / WEIGHTS)
    description = {
        "format": _FORMAT,
        "model": _described(module, model),
        "data": info.to_dict(),
        "preprocessing": dict(preprocessing),
        "loss": loss,
        **({"loss_params": dict(loss_params)} if loss_params else {}),
    }
    (folder / DESCRIPTION).write_text(json.dumps(description, indent=2, allow_nan=False) + "\n")


def _described(module: nn.Module, model: Component) -> dict[str, Any]:
    """The model with all that rebuilds it: a graph itself in the place of its file."""
    if not isinstance(module, GraphModule):
        return model.model_dump(mode="json")
    params = {
        "graph": to_json(module.definition),
        "initial": None,
        "output": model.params.get("output"),
    }
    return {"name": model.name, "params": params}


@dataclass(frozen=True)
class LoadedModel:
    """A trained model, in evaluation mode on the CPU.

    Attributes:
        module: From preprocessed inputs to outputs.
        model: Name and parameters it was built from.
        info: The data it was trained on.
        preprocessing: What the training data went through.
        loss: The name of its loss, with its parameters.
    """

    module: nn.Module
    model: Component
    info: DataInfo
    preprocessing: dict[str, Any]
    loss: str
    loss_params: dict[str, Any] = field(default_factory=dict)

    def __call__(self, inputs: Any) -> Any:
        """Return the module's outputs for raw inputs (see ``prepare``).

        Those of several heads are side by side, (B, Σ sizes); those of a detector a mapping.
        """
        with torch.no_grad():
            outputs: Any = self.module(self.prepare(inputs))
        return outputs

    def predict(self, inputs: Any) -> Any:
        """Return predictions for raw inputs.

        Returns:
            Classification: labels (B,), of pixels (B, H, W), of steps (B, T); see also
            ``predict_names``. Several labels a sample: 0 or 1 for each, (B, K); the sigmoid of the
            model's outputs are probabilities. Text: the most likely next token after each
            character, (B, T). Regression: values (B, K) in the targets' own units, with poisson
            the rates, with quantiles those of each target side by side. Several heads: a dict of
            such. Detection: for each image ``boxes``, ``scores`` and ``labels``, the best first.
        """
        return predictions(self(inputs), self.info, self.loss, self.loss_params, self.preprocessing)

    def predict_names(self, inputs: Any) -> list[str]:
        """Return the name of each input's class: its number where the data set has no names.

        Raises:
            DataError: The model is not a classifier, or as ``prepare``.
        """
        if self.info.task != "classification" or self.info.target_positions:
            raise DataError(f"a model of {self.info.task} has no classes; use predict")
        names = self.info.class_names or tuple(map(str, range(self.info.outputs)))
        return [names[label] for label in self.predict(inputs).tolist()]

    def export(self, path: str | Path) -> Path:
        """Write the network as ONNX (``.onnx``) or for ``torch.export.load`` (``.pt2``).

        Of any batch size. It takes what ``prepare`` returns. ONNX needs the packages onnx and
        onnxscript.

        Raises:
            DataError: the ending is another one, a package is missing, or torch cannot export it.
        """
        return export(self.module, self.info, path, self._dtype)

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
        column = (-1,) if self.info.kind == "sequence" else (-1, *(1,) * (values.ndim - 2))
        mean, std = (
            torch.tensor(self.preprocessing[key], dtype=torch.float64).reshape(column)
            for key in ("mean", "std")
        )
        return ((values - mean) / std).to(self._dtype)

    @property
    def _dtype(self) -> torch.dtype:
        parameters = (p for p in self.module.parameters() if p.is_floating_point())
        return next((p.dtype for p in parameters), torch.float32)

    def _tokens(self, inputs: Any) -> Tensor:
        texts = [inputs] if isinstance(inputs, str) else inputs
        if isinstance(texts, Sequence) and texts and isinstance(texts[0], str):
            if "characters" not in self.preprocessing:
                raise DataError("the model takes tokens, whole numbers (B, T), not texts")
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
        count = self.info.vocabulary or self.info.outputs
        if tokens.min() < 0 or tokens.max() >= count:
            raise DataError(f"tokens must lie between 0 and {count - 1}")
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
        weights = load_file(folder / WEIGHTS)
        if any(t.dtype == torch.float64 for t in weights.values()):
            module = module.double()
        module.load_state_dict(weights)
        preprocessing, loss = described["preprocessing"], described["loss"]
        loss_params = described.get("loss_params", {})
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
    return LoadedModel(module.eval(), model, info, preprocessing, loss, loss_params)
