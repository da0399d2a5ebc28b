from __future__ import annotations

from pathlib import Path

from PIL import Image

from dmask_mobile.sweep.front import sweep_record
from dmask_mobile.sweep.picture import draw_front
from tests.dmask_mobile.sweep.design import DESIGN, finished_sweep


def test_the_same_sweep_gives_the_same_pictures_which_say_what_they_show(tmp_path: Path) -> None:
    folder = finished_sweep(tmp_path, [(90e3, 0.5), (140e3, 0.7), (98e3, 0.6)])
    record = sweep_record(DESIGN, folder, {"macs": "macs"})
    first, second = ([tmp_path / f"{name}{end}" for end in (".png", ".svg")] for name in "ab")
    draw_front(record, DESIGN, tuple(first))
    draw_front(record, DESIGN, tuple(second))
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]
    with Image.open(first[0]) as image:
        assert image.format == "PNG"
        assert image.size[0] > 500
    drawn = first[1].read_text()  # matplotlib draws letters as shapes and writes each text beside them as a comment
    texts = ["seed 0", "seed 1", "Pareto front", "predicted macs; dotted: budgets", "small: 3 of 4 runs"]
    assert [text for text in texts if f"<!-- {text} -->" not in drawn] == []
