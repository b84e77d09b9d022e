"""What a vision call costs, by the price list in the settings."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from shared.settings import Settings


def cost_of(settings: Settings, prompt_tokens: int, completion_tokens: int) -> float | None:
    """Money in the price list's currency; None where no price is set (a local model, an unknown tariff)."""
    if not (settings.vision_price_input or settings.vision_price_output):
        return None
    return (
        prompt_tokens * settings.vision_price_input + completion_tokens * settings.vision_price_output
    ) / 1_000_000
