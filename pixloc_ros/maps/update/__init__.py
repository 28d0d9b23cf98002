"""What later drives saw becomes part of a map: `pixloc map update`."""
