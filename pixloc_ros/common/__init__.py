"""Small tools without a domain: files, timing, progress, process settings."""
