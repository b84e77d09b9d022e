"""Run the service: ``python -m sandbox.vision``."""

from __future__ import annotations

from sandbox.vision.service import main

main()
