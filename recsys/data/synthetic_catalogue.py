"""Items of the generated world: their traits, and how those are worded in English and Chinese.

An item has one trait of each kind: a row of six numbers, in the order of `KINDS`. Every word list
is indexed by the trait's number, then by language (`ENGLISH`, `CHINESE`). All brands are invented.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from recsys.config import WorldConfig

ENGLISH, CHINESE = 0, 1

MATERIALS = (
    ("leather", "皮革"),
    ("canvas", "帆布"),
    ("nylon", "尼龙"),
    ("cotton", "棉"),
    ("wool", "羊毛"),
    ("linen", "亚麻"),
    ("steel", "不锈钢"),
    ("aluminium", "铝合金"),
    ("bamboo", "竹"),
    ("oak wood", "橡木"),
    ("ceramic", "陶瓷"),
    ("glass", "玻璃"),
    ("recycled plastic", "再生塑料"),
    ("paper", "纸质"),
)
COLOURS = (
    ("black", "黑色"),
    ("white", "白色"),
    ("grey", "灰色"),
    ("blue", "蓝色"),
    ("green", "绿色"),
    ("red", "红色"),
    ("yellow", "黄色"),
    ("pink", "粉色"),
)
USES = (
    ("travel", "旅行"),
    ("office work", "办公"),
    ("weekend hikes", "徒步"),
    ("family homes", "居家"),
    ("gift giving", "送礼"),
    ("small flats", "小户型"),
    ("children", "儿童"),
    ("sport", "运动"),
)
BRANDS = (
    ("Alvenor", "艾文诺"),
    ("Brimwelt", "布林维"),
    ("Cordelva", "科德瓦"),
    ("Dunmerra", "敦米拉"),
    ("Eskarro", "埃斯卡"),
    ("Fennocka", "芬诺卡"),
    ("Galdwyn", "加德温"),
    ("Holliska", "霍利卡"),
    ("Ivarrone", "伊瓦龙"),
    ("Jorvellin", "乔维林"),
    ("Kestrano", "凯斯诺"),
    ("Lumavikt", "卢玛维"),
    ("Morrandel", "莫兰戴"),
    ("Nimbrella", "宁布拉"),
    ("Ostavina", "奥塔娜"),
    ("Pellarone", "佩拉龙"),
    ("Quivanto", "奎凡托"),
    ("Rosteline", "罗斯琳"),
    ("Selwicka", "塞维卡"),
    ("Tarnmoora", "塔恩莫"),
)
CATEGORIES = (
    ("Bags and luggage", "箱包"),
    ("Kitchen", "厨房用品"),
    ("Camping and outdoors", "户外装备"),
    ("Clothing", "服装"),
    ("Home and living", "家居"),
    ("Desk and stationery", "文具"),
    ("Toys and games", "玩具"),
    ("Garden", "园艺"),
)
CATEGORY_MATERIALS = (
    ("leather", "canvas", "nylon", "cotton", "recycled plastic"),
    ("steel", "ceramic", "bamboo", "glass", "oak wood"),
    ("nylon", "aluminium", "steel", "canvas", "bamboo"),
    ("cotton", "wool", "linen", "leather", "nylon"),
    ("cotton", "linen", "glass", "bamboo", "wool"),
    ("leather", "steel", "bamboo", "paper", "aluminium"),
    ("oak wood", "cotton", "paper", "recycled plastic", "wool"),
    ("steel", "ceramic", "oak wood", "leather", "recycled plastic"),
)
"""Which materials a category's items are made of."""

_TYPES_OF_CATEGORY = (
    "backpack/rucksack/背包, suitcase/trolley case/行李箱, wallet/billfold/钱包, "
    "tote bag/shopper bag/手提袋, belt bag/waist pack/腰包, laptop sleeve/computer pouch/电脑包",
    "frying pan/skillet/平底锅, teapot/tea kettle/茶壶, chopping board/cutting board/砧板, "
    "lunch box/food container/饭盒, coffee mug/coffee cup/咖啡杯, kitchen knife/cook's knife/菜刀",
    "tent/camping shelter/帐篷, sleeping bag/camp bedding/睡袋, water bottle/canteen/水壶, "
    "headlamp/head torch/头灯, hammock/hanging bed/吊床, trekking pole/hiking stick/登山杖",
    "jacket/coat/外套, sweater/jumper/毛衣, T-shirt/tee/短袖衫, "
    "scarf/shawl/围巾, trousers/pants/长裤, hat/cap/帽子",
    "table lamp/bedside light/台灯, cushion/throw pillow/靠垫, rug/carpet/地毯, "
    "curtain/window drape/窗帘, storage basket/hamper/收纳篮, vase/flower jar/花瓶",
    "notebook/journal/笔记本, fountain pen/ink pen/钢笔, pencil case/pen pouch/笔袋, "
    "desk organiser/desktop tray/收纳盒, ruler/straightedge/直尺, desk calendar/planner/日历",
    "jigsaw/picture puzzle/拼图, building blocks/stacking bricks/积木, toy bear/bear doll/玩具熊, "
    "board game/tabletop game/桌游, kite/wind glider/风筝, toy train/model railway/玩具火车",
    "watering can/sprinkler jug/洒水壶, flower pot/planter/花盆, pruning shears/secateurs/修枝剪, "
    "garden gloves/work gloves/手套, bird feeder/bird table/喂鸟器, garden chair/patio seat/花园椅",
)


def _interleaved(categories: tuple[str, ...]) -> tuple[tuple[str, str, str], ...]:
    # The categories take turns, so that the few types of a tiny world still span them.
    turns = zip(*(category.split(", ") for category in categories), strict=True)
    triples = (name.split("/") for turn in turns for name in turn)
    return tuple((first, second, chinese) for first, second, chinese in triples)


TYPES = _interleaved(_TYPES_OF_CATEGORY)
"""(English name, its synonym, Chinese name); type t is of category t % len(CATEGORIES)."""

KINDS = {
    "category": CATEGORIES,
    "type": TYPES,
    "material": MATERIALS,
    "colour": COLOURS,
    "use": USES,
    "brand": BRANDS,
}
"""The kinds of trait and their words."""
CATEGORY, TYPE, MATERIAL, COLOUR, USE, BRAND = range(len(KINDS))

_TITLES = (
    (
        "{colour} {material} {type}",
        "{type} in {colour} {material} for {use}",
        "{material} {type} for {use}, {colour}",
        "{colour} {type} for {use}",
    ),
    (
        "{colour}{material}{type}",
        "{use}用{type} {material} {colour}",
        "{material}{type} {colour} {use}款",
        "{colour}{use}{type}",
    ),
)
_DESCRIPTIONS = (
    (
        "{type} in {colour} {material}, made for {use}.",
        "Made of {material} in {colour}. A good choice for {use}.",
        "Choose this {colour} {type} for {use}. The material is {material}.",
    ),
    (
        "{colour}{type} 采用{material}制成 适合{use}",
        "材质为{material} 颜色为{colour} 是{use}的好选择",
        "为{use}设计的{type} {colour} {material}质地",
    ),
)
_CLOSINGS = (
    (
        "Easy to clean and built to last.",
        "Comes in plain packaging.",
        "Returns accepted within a month.",
        "A favourite of our customers.",
    ),
    ("易于清洁 经久耐用", "简约包装", "一个月内可退换", "深受顾客喜爱"),
)


_ITEMS_PER_TYPE = 5  # A tiny catalogue has fewer types, so that each still offers a choice.
_TYPE_ZIPF, _ITEM_ZIPF = 0.9, 1.0  # Together: the top tenth of items takes about half the events.
_NEW_ITEM_BOOST = 3.0  # Shops promote arrivals; it also gives cold items enough test events.
_NO_BRAND = 0.08


@dataclass(frozen=True, slots=True)
class Catalogue:
    """What the N items are; T types are in use.

    `traits` (N, 6): number of the trait of each kind. `shares` (2, N): popularity among the items
    of its type, before and from the cold cut on. `type_shares` (T,): popularity of types.
    `by_type` (N,): items grouped by type, the most popular first; `starts` (T + 1,): where groups
    begin. `languages` (N,), `brand_known` (N,), `cold` (N,), `prices` (N,) float32.
    """

    traits: np.ndarray
    shares: np.ndarray
    type_shares: np.ndarray
    by_type: np.ndarray
    starts: np.ndarray
    languages: np.ndarray
    brand_known: np.ndarray
    cold: np.ndarray
    prices: np.ndarray

    @property
    def types(self) -> np.ndarray:
        """(N,) type of each item."""
        return self.traits[:, TYPE]


def make_catalogue(config: WorldConfig, rng: np.random.Generator) -> Catalogue:
    """The catalogue of `config`; every type in use has an item that is not cold."""
    num_items = config.num_items
    num_types = min(len(TYPES), max(1, num_items // _ITEMS_PER_TYPE))
    traits = _draw_traits(num_items, num_types, rng)
    types = traits[:, TYPE]
    shuffled = rng.permutation(num_items)
    by_type = shuffled[np.argsort(types[shuffled], kind="stable")]
    starts = np.searchsorted(types[by_type], np.arange(num_types + 1))
    rank = np.empty(num_items, dtype=np.int64)
    rank[by_type] = np.arange(num_items) - starts[types[by_type]]
    cold = _draw_cold(config, rank, rng)
    chinese = rng.permutation(num_items) < round(config.chinese_share * num_items)
    type_shares = np.arange(1, num_types + 1) ** -_TYPE_ZIPF
    return Catalogue(
        traits=traits,
        shares=_shares_within_type(types, rank, cold),
        type_shares=rng.permutation(type_shares / type_shares.sum()),
        by_type=by_type,
        starts=starts,
        languages=np.where(chinese, CHINESE, ENGLISH),
        brand_known=rng.random(num_items) >= _NO_BRAND,
        cold=cold,
        prices=_draw_prices(traits, rng),
    )


def _draw_cold(config: WorldConfig, rank: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    # The most popular item of a type is never cold, so that no type is ever empty.
    allowed = np.flatnonzero(rank > 0)
    count = min(round(config.cold_share * config.num_items), len(allowed))
    cold = np.zeros(config.num_items, dtype=bool)
    cold[rng.choice(allowed, count, replace=False)] = True
    return cold


def _shares_within_type(types: np.ndarray, rank: np.ndarray, cold: np.ndarray) -> np.ndarray:
    weight = (rank + 1.0) ** -_ITEM_ZIPF
    shares = np.stack([weight * ~cold, weight * np.where(cold, _NEW_ITEM_BOOST, 1.0)])
    totals = np.stack([np.bincount(types, share) for share in shares])
    return shares / totals[:, types]


def _draw_prices(traits: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    by_type = rng.uniform(np.log(5), np.log(150), size=len(TYPES))
    by_brand = rng.normal(scale=0.2, size=len(BRANDS))
    spread = rng.normal(scale=0.3, size=len(traits))
    prices = np.exp(by_type[traits[:, TYPE]] + by_brand[traits[:, BRAND]] + spread)
    return prices.round(2).astype(np.float32)


def _draw_traits(num_items: int, num_types: int, rng: np.random.Generator) -> np.ndarray:
    # (num_items, 6); each type has an item, so that shoppers find something wherever they turn.
    types = np.concatenate([np.arange(num_types), rng.integers(num_types, size=num_items)])
    types = rng.permutation(types[:num_items])
    category = types % len(CATEGORIES)
    names = [english for english, _ in MATERIALS]
    choices = np.array([[names.index(name) for name in row] for row in CATEGORY_MATERIALS])
    material = choices[category, rng.integers(choices.shape[1], size=num_items)]
    rest = [rng.integers(len(words), size=num_items) for words in (COLOURS, USES, BRANDS)]
    return np.stack([category, types, material, *rest], axis=1)


def item_text(
    traits: Sequence[int], language: int, brand_known: bool, rng: np.random.Generator
) -> tuple[str, str, str, str | None]:
    """Title, description, category and brand (None where not known) of the item."""
    words = _words(traits, language, rng)
    title = _capitalised(_pick(_TITLES, language, rng).format(**words))
    said = _capitalised(_pick(_DESCRIPTIONS, language, rng).format(**words))
    description = f"{said} {_pick(_CLOSINGS, language, rng)}"
    if not brand_known:
        return title, description, words["category"], None
    return f"{words['brand']} {title}", description, words["category"], words["brand"]


def query_text(
    traits: Sequence[int],
    kinds: Sequence[int],
    language: int,
    price_limit: int | None,
    rng: np.random.Generator,
) -> str:
    """What a shopper types who wants the type and the traits of `kinds`, up to a price."""
    words = _words(traits, language, rng)
    wanted = [list(KINDS)[kind] for kind in (BRAND, COLOUR, MATERIAL) if kind in kinds]
    known = [words[kind] for kind in (*wanted, "type")]
    if language == CHINESE:
        use = f"{words['use']}用" if USE in kinds else ""
        return use + "".join(known) + (f" {price_limit}元以下" if price_limit else "")
    use = f" for {words['use']}" if USE in kinds else ""
    return (" ".join(known) + use + (f" under {price_limit}" if price_limit else "")).lower()


def _words(traits: Sequence[int], language: int, rng: np.random.Generator) -> dict[str, str]:
    words = {
        kind: names[number][language]
        for (kind, names), number in zip(KINDS.items(), traits, strict=True)
    }
    first, second, chinese = TYPES[traits[TYPE]]
    words["type"] = chinese if language == CHINESE else (first, second)[rng.integers(2)]
    return words


def _pick(sentences: tuple[tuple[str, ...], ...], language: int, rng: np.random.Generator) -> str:
    return sentences[language][rng.integers(len(sentences[language]))]


def _capitalised(text: str) -> str:
    return text[0].upper() + text[1:]
