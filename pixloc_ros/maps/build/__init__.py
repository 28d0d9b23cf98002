"""How maps are made: from models, clouds, posed images; edited, merged, georeferenced."""
