"""`Recipe`: how a network is trained, as YAML. `RecipeFields`: its settings, as a run stores them."""

from __future__ import annotations

import math
from importlib import resources
from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

from pydantic import AfterValidator, Field, PositiveFloat, PositiveInt, model_validator

from dmask_mobile.errors import DmaskError, shown
from dmask_mobile.records.base import FileRecord, Record
from dmask_mobile.records.setting_names import RECIPES as RECIPES
from dmask_mobile.records.setting_names import ModelFormat

Mirroring = Literal["alternating", "random", "never"]
Optimizer = Literal["sgd", "adamw", "rmsproptf"]
Schedule = Literal["cosine", "exponential", "constant"]
Share = Annotated[float, Field(ge=0, le=1)]
Probability = Annotated[float, Field(ge=0, lt=1)]
Alpha = Annotated[float, Field(ge=0, le=100), AfterValidator(lambda alpha: alpha if alpha >= MIN_ALPHA else 0.0)]
Epochs = Annotated[int, Field(ge=1, le=100_000)]
BatchSize = Annotated[int, Field(ge=1, le=1_000_000)]

QAT_SHARE = 0.5  # of the epochs, at the end
MIN_ALPHA = 1e-3  # of mixup and cutmix; smaller values would leave images nearly unchanged


class Augmentation(Record):
    """How training changes an image each time that it uses it.

    ``shift``: the largest random shift in each direction, as a share of the side. ``crop``: the smallest and the
    largest share of the area that a random crop keeps (its aspect ratio is 3:4 to 4:3); the crop is scaled to the full
    size and replaces the shift. ``mirroring``: ``alternating`` mirrors each image in every other epoch, ``random`` with
    probability 1/2; images are not mirrored if the data source forbids it. ``rand_augment``: the magnitude (0 to 30) of
    two random operations an image, 0 for none.
    ``erasing``: the probability that a random rectangle turns black. ``mixup``, ``cutmix``: alpha of each, 0 for none;
    if both are set, one of them is chosen at random for each batch.
    """

    shift: float = Field(default=0.125, ge=0, le=0.5)
    crop: tuple[PositiveFloat, PositiveFloat] | None = None
    mirroring: Mirroring = "alternating"
    rand_augment: int = Field(default=0, ge=0, le=30)
    erasing: Share = 0.0
    mixup: Alpha = 0.0
    cutmix: Alpha = 0.0

    @model_validator(mode="after")
    def _crop_fits(self) -> Self:
        if self.crop is not None and not self.crop[0] <= self.crop[1] <= 1:
            raise ValueError(f"crop must be two shares of the area, the smaller first, at most 1; got {self.crop}")
        return self

    @property
    def is_by_image(self) -> bool:
        """Whether any operation is applied to single images when they are decoded."""
        return self.rand_augment > 0 or self.erasing > 0


class Distillation(Record):
    """Knowledge distillation: learning from another network's scores (Hinton et al., 2015, section 2).

    ``teacher``: ``supernet`` (the widest network in the run's supernet), ``original`` (the trained network that the
    search started from) or ``timm:NAME``, whose ``weights`` are a safetensors file. The loss is ``(1 - share) CE +
    share T^2 KL(teacher || student)`` at the temperature T.
    """

    teacher: str = Field(pattern=r"^(supernet|original|timm:[A-Za-z0-9_.]+)$")
    weights: str | None = None
    share: Share = 0.5
    temperature: float = Field(default=2.0, ge=0.1, le=100)

    @model_validator(mode="after")
    def _has_weights(self) -> Self:
        if (self.weights is not None) != self.teacher.startswith("timm:"):
            raise ValueError("a teacher from timm needs weights (a safetensors file), and other teachers take none")
        return self


class RecipeFields(Record):
    """The settings of a training.

    ``batch_size``: images of one optimizer step over all processes. ``accumulate``: the number of parts into which each
    batch is split; they are computed one after the other. ``decay_rate``: the factor by epoch of an exponential
    schedule. ``weight_decay`` does not apply to norms and biases. ``norm_bias_rate``: the learning rate of the batch
    norms' biases, as a multiple of that of the others. ``ema_decay``: the decay of the moving average of the
    weights, which is kept if it is better on the validation images; None for no average. ``drop_path``: the probability
    that the last block's residual branch is left out, falling linearly to the first (Huang et al., 2016).
    ``clip_norm``: the largest norm of the gradient. ``qat``: the format for whose int8 the network is trained in the
    last half of the epochs (`training.fake_quantization`); None for no such training.
    """

    epochs: Epochs = 30
    batch_size: BatchSize = 128
    accumulate: PositiveInt = Field(default=1, le=10_000)
    optimizer: Optimizer = "sgd"
    learning_rate: PositiveFloat = 0.2
    momentum: Probability = 0.9
    weight_decay: float = Field(default=5e-5, ge=0)
    norm_bias_rate: PositiveFloat = 1.0
    schedule: Schedule = "cosine"
    decay_rate: float = Field(default=0.97, gt=0, le=1)
    warmup_epochs: float = Field(default=1.0, ge=0)
    label_smoothing: Probability = 0.1
    ema_decay: Probability | None = 0.998
    drop_path: Probability = 0.0
    clip_norm: PositiveFloat | None = None
    augmentation: Augmentation = Augmentation()
    distillation: Distillation | None = None
    qat: ModelFormat | None = None

    @property
    def plain_epochs(self) -> int:
        """The number of epochs before the network computes as in int8; only for recipes with ``qat``."""
        return math.floor((1 - QAT_SHARE) * self.epochs)


class Recipe(FileRecord, RecipeFields):
    """A recipe's YAML file. ``notes`` state the origin of its values."""

    file_format: ClassVar[str] = "dmask-recipe"

    notes: str = ""


def load_recipe(name: str) -> Recipe:
    """The shipped recipe of this name, or the recipe in a YAML file.

    Raises:
        DmaskError: if there is no such recipe, or the file breaks a rule of recipes.
    """
    if name in RECIPES:
        return Recipe.read(Path(str(resources.files("dmask_mobile.recipes") / f"{name}.yaml")))
    if Path(name).suffix not in (".yaml", ".yml"):
        raise DmaskError(f"no recipe '{shown(name)}'", f"give one of {', '.join(RECIPES)}, or a YAML file")
    return Recipe.read(Path(name))
