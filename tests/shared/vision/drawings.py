"""Pictures drawn so plainly that the classifier recognises them: the repository keeps no photographs."""

from __future__ import annotations

import io
import math

from PIL import Image, ImageDraw


def jpeg(picture: Image.Image) -> bytes:
    """As a preview arrives."""
    target = io.BytesIO()
    picture.save(target, "JPEG", quality=85)
    return target.getvalue()


def clock() -> Image.Image:
    """A wall clock."""
    picture = Image.new("RGB", (400, 400), (225, 220, 205))
    draw = ImageDraw.Draw(picture)
    draw.ellipse((40, 40, 360, 360), fill="white", outline=(20, 20, 20), width=14)
    for minute in range(60):
        angle = minute * math.pi / 30
        inner = 142 if minute % 5 else 130
        ends = [(200 + r * math.sin(angle), 200 - r * math.cos(angle)) for r in (inner, 150)]
        draw.line(ends, fill="black", width=2 if minute % 5 else 6)
    draw.line((200, 200, 260, 130), fill="black", width=10)
    draw.line((200, 200, 190, 70), fill="black", width=6)
    draw.ellipse((190, 190, 210, 210), fill="black")
    return picture


def picket_fence() -> Image.Image:
    """A white fence on a meadow."""
    picture = Image.new("RGB", (500, 375), (120, 180, 90))
    draw = ImageDraw.Draw(picture)
    draw.rectangle((0, 0, 500, 150), fill=(140, 190, 235))
    for rail in (160, 270):
        draw.rectangle((0, rail, 500, rail + 20), fill=(225, 225, 220))
    for x in range(5, 500, 45):
        outline = [(x, 330), (x, 130), (x + 16, 100), (x + 32, 130), (x + 32, 330)]
        draw.polygon(outline, fill=(240, 238, 230), outline=(160, 160, 160))
    return picture


def traffic_light() -> Image.Image:
    """Recognised, but not surely."""
    picture = Image.new("RGB", (400, 400), (150, 190, 230))
    draw = ImageDraw.Draw(picture)
    draw.rounded_rectangle((140, 30, 260, 330), 20, fill=(30, 30, 30))
    for y, colour in ((80, (255, 40, 30)), (180, (120, 100, 10)), (280, (10, 90, 30))):
        draw.ellipse((160, y - 40, 240, y + 40), fill=colour)
    draw.rectangle((190, 330, 210, 400), fill=(80, 80, 80))
    return picture


def nothing() -> Image.Image:
    """A soft gradient that shows no thing."""
    return Image.linear_gradient("L").resize((640, 480)).convert("RGB")
