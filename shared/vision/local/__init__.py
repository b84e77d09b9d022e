"""Describe photos on this machine: a small ImageNet classifier and measurements of the picture itself.

Since version 1.29 onnxruntime reports a device id, the path of the interpreter and the system to its maker
at mobile.events.data.microsoft.com. It reads the switch when it is imported, so this package sets it
before any of its modules can import it. Whatever the environment says, nothing may leave this machine.
"""

from __future__ import annotations

import os

os.environ["ORT_DISABLE_TELEMETRY"] = "1"
