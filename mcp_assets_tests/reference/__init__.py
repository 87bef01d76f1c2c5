"""Reference pages that are made from the code: `make reference` writes them, and tests compare them."""
