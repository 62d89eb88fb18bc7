"""Commands on skill packages: the store, catalogues, signatures, other formats."""
