"""Characters rendered from fonts: a data set that needs no download and exists at any resolution."""

from __future__ import annotations

import string
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from dmask_mobile.errors import DmaskError

MATPLOTLIB_FONTS = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
CHARACTERS = string.digits + string.ascii_uppercase
NUM_IMAGES = 12_000  # about; every (font, character) pair is rendered equally often
ENOUGH_FAMILIES = 20  # from here on the validation images come from families of their own
SHAPE_SIZE = 24
SYMBOL_FONTS = {"cmex10", "cmmi10", "cmsy10"}  # Computer Modern's maths fonts draw symbols at the letters' codes


class Glyphs(NamedTuple):
    """Images (N, 3, R, R) uint8, labels (N,), the characters that they index.

    ``held_out`` marks the images of the held-out font families; None when there are too few families.
    """

    images: np.ndarray
    labels: np.ndarray
    characters: str
    held_out: np.ndarray | None


def render_glyphs(folder: Path, resolution: int, seed: int = 0) -> Glyphs:
    """The digits and capitals of every usable font in ``folder``, in random colours, sizes and places.

    Raises:
        DmaskError: when ``folder`` holds no font with such characters.
    """
    fonts = [path for path in sorted(folder.rglob("*.ttf")) if path.stem not in SYMBOL_FONTS]
    pairs = [(path, index) for path in fonts for index in _usable_characters(path)]
    if not pairs:
        raise DmaskError(f"no TrueType font with digits and capitals in '{folder}'", "give another folder of fonts")
    repeats = max(1, round(NUM_IMAGES / len(pairs)))
    random = np.random.default_rng(seed)
    opened: dict[tuple[Path, int], ImageFont.FreeTypeFont] = {}
    images = np.empty((len(pairs) * repeats, 3, resolution, resolution), np.uint8)
    for number, (path, index) in enumerate(pair for pair in pairs for _ in range(repeats)):
        images[number] = _draw(opened, path, CHARACTERS[index], resolution, random)
    labels = np.repeat(np.array([index for _, index in pairs], np.int64), repeats)
    families = sorted({_family(path) for path, _ in pairs})
    held_out = None
    if len(families) >= ENOUGH_FAMILIES:
        chosen = set(random.choice(families, len(families) // 5, replace=False).tolist())
        held_out = np.repeat(np.array([_family(path) in chosen for path, _ in pairs]), repeats)
    return Glyphs(images, labels, CHARACTERS, held_out)


def _family(path: Path) -> str:
    return path.stem[:5].lower()


def _usable_characters(path: Path) -> list[int]:
    """The characters that a font has: not blank, not a shape that more than two characters share (a box)."""
    try:
        font = ImageFont.truetype(str(path), SHAPE_SIZE)
        shapes = [bytes(font.getmask(character)) for character in CHARACTERS]
    except OSError:
        return []
    counts = Counter(shapes)
    return [index for index, shape in enumerate(shapes) if any(shape) and counts[shape] <= 2]


def _draw(
    opened: dict[tuple[Path, int], ImageFont.FreeTypeFont],
    path: Path,
    character: str,
    resolution: int,
    random: np.random.Generator,
) -> np.ndarray:
    size = int(resolution * random.uniform(0.55, 0.95))
    font = opened.get((path, size))
    if font is None:
        font = opened[path, size] = ImageFont.truetype(str(path), size)
    # Dark on light in every channel, as print is: with any colours, small networks learn nothing for epochs.
    paper, ink = random.integers(140, 256, 3), random.integers(0, 116, 3)
    image = Image.new("RGB", (resolution, resolution), tuple(paper.tolist()))
    left, top, right, bottom = font.getbbox(character)
    free = np.array([resolution - (right - left), resolution - (bottom - top)])
    x, y = (free * random.uniform(0.1, 0.9, 2)).tolist()
    ImageDraw.Draw(image).text((x - left, y - top), character, fill=tuple(ink.tolist()), font=font)
    noisy = np.asarray(image, np.float32) + random.normal(0, 8, (resolution, resolution, 3))
    pixels: np.ndarray = np.clip(noisy, 0, 255).astype(np.uint8).transpose(2, 0, 1)
    return pixels
