"""The generator of the street: geometry, materials, light and the pictures of a drive."""
