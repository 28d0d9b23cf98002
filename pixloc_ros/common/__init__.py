"""Small general tools: files, timing, progress, process settings."""
