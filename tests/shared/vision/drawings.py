"""Pictures drawn so plainly that the classifier recognises them: the repository keeps no photographs."""

from __future__ import annotations

import io
import math

from PIL import Image, ImageDraw, ImageFilter


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


def face() -> Image.Image:
    """A face from the front, blurred: to the detector flat colours with sharp edges are a drawing."""
    picture = Image.new("RGB", (400, 400), (120, 150, 180))
    draw = ImageDraw.Draw(picture)
    draw.ellipse((90, 40, 310, 250), fill=(60, 40, 30))
    draw.rectangle((160, 270, 240, 400), fill=(200, 150, 120))
    draw.ellipse((110, 70, 290, 330), fill=(224, 172, 140))
    draw.chord((105, 45, 295, 200), 180, 360, fill=(60, 40, 30))
    for x in (160, 240):
        draw.arc((x - 28, 150, x + 28, 190), 200, 340, fill=(70, 45, 35), width=7)
        draw.ellipse((x - 22, 172, x + 22, 194), fill=(245, 240, 235))
        draw.ellipse((x - 10, 172, x + 10, 192), fill=(50, 35, 30))
    draw.polygon([(200, 185), (180, 240), (220, 240)], fill=(208, 152, 120))
    for x in (180, 207):
        draw.ellipse((x, 230, x + 13, 242), fill=(150, 95, 80))
    draw.chord((160, 255, 240, 300), 0, 180, fill=(170, 70, 70))
    draw.line((160, 277, 240, 277), fill=(120, 40, 45), width=4)
    return picture.filter(ImageFilter.GaussianBlur(7))


def nothing() -> Image.Image:
    """A soft gradient that shows no thing."""
    return Image.linear_gradient("L").resize((640, 480)).convert("RGB")
