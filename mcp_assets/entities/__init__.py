"""What an entity is, without I/O: its name, type, text, hashes and chunks."""
