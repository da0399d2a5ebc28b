from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile("default", deadline=None, max_examples=25, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("default")


@pytest.fixture(autouse=True)
def _one_seed() -> None:
    """Only for what libraries draw by themselves; our own code takes generators."""
    import torch

    torch.manual_seed(0)
