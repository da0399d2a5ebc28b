"""``glyphs[:FONTS]``: digits and capital letters rendered from fonts at any resolution; needs no download."""

from __future__ import annotations

import string
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from dmask_mobile.data.source import Examples
from dmask_mobile.errors import DmaskError

MATPLOTLIB_FONTS = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
CHARACTERS = string.digits + string.ascii_uppercase
NUM_IMAGES = 12_000  # approximately; every (font, character) pair is rendered equally often
ENOUGH_FAMILIES = 20  # from this number on, val and test images use other font families than train
SHAPE_SIZE = 24
DEFAULT_RESOLUTION = 32
SYMBOL_FONTS = {"cmex10", "cmmi10", "cmsy10"}  # Computer Modern's maths fonts draw symbols at the letters' codes
Glyph = tuple[Path, int]
"""A font and the number of a character in `CHARACTERS`."""


@dataclass(frozen=True)
class GlyphExamples:
    """Rendered characters. ``glyphs``: the font, the character and the seed of each image."""

    glyphs: Sequence[tuple[Glyph, int]]
    root: Path
    resolution: int = DEFAULT_RESOLUTION

    @cached_property
    def labels(self) -> Sequence[int]:
        """The numbers of the characters; see `Examples`."""
        return [character for (_, character), _ in self.glyphs]

    def at(self, resolution: int) -> GlyphExamples:
        """The same characters rendered at another resolution."""
        return replace(self, resolution=resolution)

    def image(self, index: int) -> Image.Image:
        """A character with random colours, size and position; see `Examples`."""
        (path, character), seed = self.glyphs[index]
        return _draw(path, CHARACTERS[character], self.resolution, np.random.default_rng(seed))

    def name(self, index: int) -> str:
        """The font's file and size, the character and its seed; see `Examples`."""
        (path, character), seed = self.glyphs[index]
        return f"{CHARACTERS[character]} of {path.relative_to(self.root)} ({_size(path)} bytes), seed {seed}"


class GlyphSource:
    """The digits and capital letters of every usable font in a folder.

    Args:
        folder: a folder with TrueType fonts; empty for the fonts of matplotlib.
        seed: the seed for sizes, positions and colours, and for the choice of held-out families.

    Raises:
        DmaskError: if the folder contains no font with such characters.
    """

    class_names = tuple(CHARACTERS)
    flip = False

    def __init__(self, folder: str = "", seed: int = 0) -> None:
        self.root = Path(folder).resolve() if folder else MATPLOTLIB_FONTS
        self.seed = seed
        fonts = [path for path in sorted(self.root.rglob("*.ttf")) if path.stem not in SYMBOL_FONTS]
        self._glyphs = [(path, index) for path in fonts for index in _usable_characters(path)]
        if not self._glyphs:
            raise DmaskError(
                f"no TrueType font with digits and capitals in '{self.root}'", "give another folder with fonts"
            )

    def splits(self) -> Mapping[str, Examples]:
        """The splits: with 20 families or more, a fifth is ``val`` and a fifth is ``test``; otherwise only
        ``train``."""
        repeats = max(1, round(NUM_IMAGES / len(self._glyphs)))
        seeded = [
            (glyph, self.seed * 1_000_003 + number * repeats + repeat)
            for number, glyph in enumerate(self._glyphs)
            for repeat in range(repeats)
        ]
        part_of = self._parts()
        found = {}
        for split in sorted(set(part_of.values())):
            found[split] = GlyphExamples([g for g in seeded if part_of[_family(g[0][0])] == split], self.root)
        return found

    def _parts(self) -> dict[str, str]:
        """The split of each family."""
        families = sorted({_family(path) for path, _ in self._glyphs})
        part_of = dict.fromkeys(families, "train")
        if len(families) >= ENOUGH_FAMILIES:
            shuffled = np.random.default_rng(self.seed).permutation(families).tolist()
            fifth = len(families) // 5
            part_of |= dict.fromkeys(shuffled[:fifth], "val") | dict.fromkeys(shuffled[fifth : 2 * fifth], "test")
        return part_of


def _family(path: Path) -> str:
    return path.stem[:5].lower()


@lru_cache(maxsize=4096)
def _size(path: Path) -> int:
    return path.stat().st_size


@lru_cache(maxsize=4096)
def _font(path: Path, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(str(path), size)


def _usable_characters(path: Path) -> list[int]:
    """The characters of a font that are not blank and not a placeholder box (a shape shared by over two characters)."""
    try:
        shapes = [bytes(_font(path, SHAPE_SIZE).getmask(character)) for character in CHARACTERS]
    except OSError:
        return []
    counts = Counter(shapes)
    return [index for index, shape in enumerate(shapes) if any(shape) and counts[shape] <= 2]


def _draw(path: Path, character: str, resolution: int, random: np.random.Generator) -> Image.Image:
    font = _font(path, int(resolution * random.uniform(0.55, 0.95)))
    # Dark on light in every channel, like print: with arbitrary colours, small networks learn nothing for epochs.
    paper, ink = random.integers(140, 256, 3), random.integers(0, 116, 3)
    image = Image.new("RGB", (resolution, resolution), tuple(paper.tolist()))
    left, top, right, bottom = font.getbbox(character)
    free = np.array([resolution - (right - left), resolution - (bottom - top)])
    x, y = (free * random.uniform(0.1, 0.9, 2)).tolist()
    ImageDraw.Draw(image).text((x - left, y - top), character, fill=tuple(ink.tolist()), font=font)
    noisy = np.asarray(image, np.float32) + random.normal(0, 8, (resolution, resolution, 3))
    return Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8))
