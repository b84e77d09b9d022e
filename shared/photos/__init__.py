"""Photos as they come: opened with care, their EXIF read, previews made."""
