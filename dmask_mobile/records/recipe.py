"""`Recipe`: how a network is trained, as YAML. `RecipeFields` are its settings, which a run keeps as resolved."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

from pydantic import AfterValidator, Field, PositiveFloat, PositiveInt, model_validator

from dmask_mobile.errors import DmaskError, shown
from dmask_mobile.records.base import FileRecord, Record
from dmask_mobile.records.setting_names import RECIPES as RECIPES

Mirroring = Literal["alternating", "random", "never"]
Optimizer = Literal["sgd", "adamw", "rmsproptf"]
Schedule = Literal["cosine", "exponential", "constant"]
Share = Annotated[float, Field(ge=0, le=1)]
Probability = Annotated[float, Field(ge=0, lt=1)]
Alpha = Annotated[float, Field(ge=0, le=100), AfterValidator(lambda alpha: alpha if alpha >= MIN_ALPHA else 0.0)]
Epochs = Annotated[int, Field(ge=1, le=100_000)]
BatchSize = Annotated[int, Field(ge=1, le=1_000_000)]

MIN_ALPHA = 1e-3  # of mixup and cutmix; with less, images would stay as they are


class Augmentation(Record):
    """What training does to images, each time that it sees one.

    ``shift``: in each direction, at most this share of the side. ``crop``: the smallest and the largest share of the
    area that a random crop keeps (and 3:4 to 4:3 in shape), scaled to the whole side; instead of the shift.
    ``mirroring``: ``alternating`` mirrors each image in every other epoch, ``random`` by chance; nothing is mirrored
    where the data says so. ``rand_augment``: the magnitude (0 to 30) of two random operations an image, 0 for none.
    ``erasing``: the probability that a random rectangle turns black. ``mixup``, ``cutmix``: alpha of each, 0 for
    none; with both, one of them is chosen by chance for each batch.
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
        """Whether something is done to one image at a time, where it is decoded."""
        return self.rand_augment > 0 or self.erasing > 0


class Distillation(Record):
    """Learning from another network's scores (Hinton et al., 2015, section 2).

    ``teacher``: ``supernet`` (the widest network in the run's supernet) or ``timm:NAME``, whose ``weights`` are a file
    of safetensors. The loss is ``(1 - share) CE + share T^2 KL(teacher || student)`` at the temperature T.
    """

    teacher: str = Field(pattern=r"^(supernet|timm:[A-Za-z0-9_.]+)$")
    weights: str | None = None
    share: Share = 0.5
    temperature: float = Field(default=2.0, ge=0.1, le=100)

    @model_validator(mode="after")
    def _has_weights(self) -> Self:
        if (self.weights is None) != (self.teacher == "supernet"):
            raise ValueError("a teacher of timm needs weights, a safetensors file; the supernet has its own")
        return self


class RecipeFields(Record):
    """The settings of a training.

    ``batch_size``: images of one optimizer step over all processes; ``accumulate`` parts of them are computed one after
    the other. ``decay_rate``: of an exponential schedule, by epoch. ``weight_decay`` leaves norms and biases out.
    ``ema_decay``: of the moving average of the weights, which is kept where it does better on the validation images;
    None for none. ``drop_path``: the probability that the last block's residual branch is left out, falling linearly
    to the first (Huang et al., 2016). ``clip_norm``: the largest norm of the gradient.
    """

    epochs: Epochs = 30
    batch_size: BatchSize = 128
    accumulate: PositiveInt = Field(default=1, le=10_000)
    optimizer: Optimizer = "sgd"
    learning_rate: PositiveFloat = 0.2
    momentum: Probability = 0.9
    weight_decay: float = Field(default=5e-5, ge=0)
    schedule: Schedule = "cosine"
    decay_rate: float = Field(default=0.97, gt=0, le=1)
    warmup_epochs: float = Field(default=1.0, ge=0)
    label_smoothing: Probability = 0.1
    ema_decay: Probability | None = 0.998
    drop_path: Probability = 0.0
    clip_norm: PositiveFloat | None = None
    augmentation: Augmentation = Augmentation()
    distillation: Distillation | None = None


class Recipe(FileRecord, RecipeFields):
    """A recipe's YAML file. ``notes`` say where its values come from."""

    file_format: ClassVar[str] = "dmask-recipe"

    notes: str = ""


def load_recipe(name: str) -> Recipe:
    """The recipe that ships under ``name``, or that of a YAML file.

    Raises:
        DmaskError: when there is none, or the file breaks a rule of recipes.
    """
    if name in RECIPES:
        return Recipe.read(Path(str(resources.files("dmask_mobile.recipes") / f"{name}.yaml")))
    if Path(name).suffix not in (".yaml", ".yml"):
        raise DmaskError(f"no recipe '{shown(name)}'", f"give one of {', '.join(RECIPES)}, or a YAML file")
    return Recipe.read(Path(name))
