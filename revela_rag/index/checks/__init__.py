"""Look at an index that is there: whether it is whole, what it takes, and whether its database is what it must be."""
