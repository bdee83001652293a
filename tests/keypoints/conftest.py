"""Fixtures of the tracker's tests: its real models, and a photo that everybody has."""

import numpy as np
import pytest

from mobile_avatar.errors import MissingTool
from mobile_avatar.keypoints.models import TrackerModels, tracker_models
from mobile_avatar.keypoints.tracker import Tracker


@pytest.fixture(scope="session")
def models() -> TrackerModels:
    """The published models, fetched into the user's cache on first use; skipped where that is impossible."""
    try:
        return tracker_models()
    except MissingTool as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def tracker(models: TrackerModels) -> Tracker:
    return Tracker(models)


@pytest.fixture(scope="session")
def astronaut() -> np.ndarray:
    """uint8 (512, 512, 3): one smiling face, public domain, shipped inside scikit-image."""
    from skimage import data

    return data.astronaut()
