"""mobile-avatar: neural head avatars on phones. From one photo to a verified file for the runtime."""

import os

# Both are read when the libraries load, so they are set before anything imports them; a user's own choice stays.
# Torch's idle threads would spin, which on a machine with other work makes a frame ten times slower.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# ONNX Runtime reports its sessions to its maker unless told otherwise.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
