"""The tracker's models and a photo with a face, for tests that prepare videos."""

from tests.keypoints.conftest import astronaut, models  # noqa: F401
