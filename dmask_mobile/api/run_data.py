"""The images of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dmask_mobile.errors import DmaskError

if TYPE_CHECKING:
    from dmask_mobile.records.child import ChildSpec
    from dmask_mobile.run import RunRecord
    from dmask_mobile.training.data import ImageData


def data_of(record: RunRecord, child: ChildSpec, data: str | None, check_classes: bool = True) -> ImageData:
    """The run's images, or those of ``data``, as its child sees them.

    Raises:
        DmaskError: when no data is known, or it has another number of classes.
    """
    from dmask_mobile.training.data import load_data

    source = data or record.data
    if source is None:
        raise DmaskError("this run names no data", "give --data glyphs, fashion-mnist or a folder")
    resolution = record.space.resolution if record.space else child.resolution
    images = load_data(source, resolution).at(child.resolution)
    if check_classes and images.classes != child.classes:
        raise DmaskError(
            f"data '{source}' has {images.classes} classes, the child {child.classes}", "give the data of the search"
        )
    return images
