"""A small shop for the tests of queries, in two languages."""

from __future__ import annotations

import pyarrow as pa

TYPES = {
    "Bags": ("backpack", "wallet"),
    "Kitchen": ("coffee mug", "teapot"),
    "Camping gear": ("tent", "hammock"),
    "箱包": ("背包", "钱包"),
}
BRANDS = ("Alvenor", "Brimwelt", "Nordic Peak", "Red Oak")
COLOURS = {"red": "红色", "blue": "蓝色", "black": "黑色"}


def shop_items() -> pa.Table:
    """96 items, the most popular first; the last one is removed."""
    rows = []
    for category, types in TYPES.items():
        for kind in types:
            for brand in BRANDS:
                for english, chinese in COLOURS.items():
                    colour = chinese if category == "箱包" else english
                    glue = "" if category == "箱包" else " "
                    title = f"{brand} {colour}{glue}{kind}"
                    rows.append((title, category, brand, colour))
    titles, categories, brands, colours = zip(*rows, strict=True)
    return pa.table(
        {
            "item_id": [f"i{n:03d}" for n in range(len(rows))],
            "title": pa.array(titles, pa.string()),
            "category": pa.array(categories, pa.string()),
            "brand": pa.array(brands, pa.string()),
            "colour": pa.array(colours, pa.string()),
            "price": pa.array([5.0 + n for n in range(len(rows))], pa.float64()),
            "train_count": [1000 - n for n in range(len(rows))],
            "removed": [n == len(rows) - 1 for n in range(len(rows))],
        }
    )
