"""Opens photos that anybody may have sent, reads their EXIF and makes previews."""
