"""Choose the analyzer that VISION_BACKEND names."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from shared.settings import Settings
    from shared.vision.contract import Analyzer


def make_analyzer(settings: Settings, redis: Redis) -> Analyzer:
    """Return the analyzer that VISION_BACKEND names. Raises SettingsError for incomplete settings."""
    if settings.vision_backend == "openai":
        from shared.vision.openai import OpenAIAnalyzer

        return OpenAIAnalyzer(settings, redis)
    # onnxruntime and numpy are an extra that an installation with a remote model goes without
    from shared.vision.local.analyzer import LocalAnalyzer

    return LocalAnalyzer(settings)
