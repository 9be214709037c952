"""Parameters of the losses. Needs no torch."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from mlhf.core.config import Component, Strict

Weight = Annotated[float, Field(ge=0, le=1e6)]
Positive = Annotated[float, Field(gt=0, le=1e6)]
_MOST = 65_536


class CrossEntropyParams(Strict):
    """Softmax cross-entropy."""

    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.0, description="The part of each label that is spread evenly over all classes."
    )
    class_weights: Annotated[list[Weight], Field(min_length=1, max_length=_MOST)] | None = Field(
        default=None,
        description="A weight for each class, in the order of the labels. The mean divides by the "
        "weights of the labels.",
    )
    ignore_index: Annotated[int, Field(strict=True)] | None = Field(
        default=None,
        description="A class that neither loss nor accuracy counts. Labels that the data set "
        "leaves out (its own `ignore_index`) are not counted anyway.",
    )


class BinaryCrossEntropyParams(Strict):
    """Cross-entropy of yes and no: of several labels a sample, or of two classes by one output."""

    positive_weights: Annotated[list[Positive], Field(min_length=1, max_length=_MOST)] | None = (
        Field(
            default=None,
            description="A factor for each label's loss where it is 1; of two classes, one factor.",
        )
    )


class SquaredErrorParams(Strict):
    """The squared error of standardised targets."""


class HuberParams(Strict):
    """Squared up to an error of delta, linear beyond."""

    delta: Positive = Field(default=1.0, description="In deviations of the target.")


class PoissonParams(Strict):
    """For counts: the network gives the logarithm of the rate."""


class QuantileParams(Strict):
    """Quantiles of numbers: an output for each quantile of each target."""

    quantiles: Annotated[
        list[Annotated[float, Field(gt=0, lt=1)]], Field(min_length=1, max_length=64)
    ] = Field(default=[0.1, 0.5, 0.9], description="Each between 0 and 1.")
    smoothing: Annotated[float, Field(ge=1e-4, le=10)] = Field(
        default=0.05,
        description="Width of the smooth corner, in deviations of the target: it gives the loss "
        "a curvature.",
    )


class HeadParams(Strict):
    """One of several heads."""

    weight: Positive = Field(default=1.0, description="Of its loss in the sum.")
    loss: Component | None = Field(
        default=None, description="Its loss; by default that of its task."
    )


class HeadsParams(Strict):
    """A weighted sum of the losses of several targets."""

    heads: Annotated[dict[str, HeadParams], Field(max_length=64)] = Field(
        default_factory=dict, description="By the target's name; those left out have weight 1."
    )


class DetectionParams(Strict):
    """The four losses of a two-stage detector (Ren et al. 2015, "Faster R-CNN")."""

    objectness_weight: Weight = Field(default=1.0, description="Of anchors: object or not.")
    anchor_box_weight: Weight = Field(default=1.0, description="Of the anchors' boxes.")
    class_weight: Weight = Field(default=1.0, description="Of the regions' classes.")
    box_weight: Weight = Field(default=1.0, description="Of the regions' boxes.")
    positive: Annotated[float, Field(gt=0, le=1)] = Field(
        default=0.5, description="Overlap (IoU) from which an anchor or region is an object's."
    )
    negative: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.3, description="Overlap below which an anchor is background."
    )
    delta: Positive = Field(default=1.0, description="Of the boxes' Huber loss.")

    @model_validator(mode="after")
    def _sound(self) -> Self:
        weights = (self.objectness_weight, self.anchor_box_weight, self.class_weight)
        if not any((*weights, self.box_weight)):
            raise ValueError("at least one weight must be above 0")
        if self.negative > self.positive:
            raise ValueError(
                f"negative ({self.negative}) must not be above positive ({self.positive})"
            )
        return self
