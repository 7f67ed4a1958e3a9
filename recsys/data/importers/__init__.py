"""Public formats to raw tables: `interactions`, `items`, `queries` as `prepare` reads them."""
