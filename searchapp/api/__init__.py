"""What programs call. Each dialect has a place of its own; keys, limits and counting are shared."""
