"""Generate a street: geometry, materials, light and the pictures of a drive."""
