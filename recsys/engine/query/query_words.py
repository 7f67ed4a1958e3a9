"""Words of queries rather than of goods: what is asked with, in English and Chinese."""

from __future__ import annotations

from recsys.engine.query.units import key_of, split_units


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


HEAD_ENDS = _words("for with in from of under without to by on at like and not no")
"""After one of these an English query no longer names the thing itself: `mug for camping`."""
STOP_WORDS = HEAD_ENDS | _words(
    "a an the or is are be my me i you your it its this that some any need want looking search "
    "find show give s t m do does have has please our we us her his their "
    "的 了 我 要 想 用 和 或 款 个 一 是 有 在 给 买 与 吗 呢 找 们 它 这 那 请 来 点"
)
ASKING = _words(
    "buy shop online cheap cheaper shopping order price priced sale deal deals store affordable "
    "quality good great brand new all range collection than less more below above over between "
    "around about least most except excluding free within maximum minimum max min dollars dollar "
    "euros euro pounds bucks yuan size year years old month months birthday christmas "
    "can could would will "
    "哪里 哪儿 所有 全部 多少钱 价格"
)
"""What queries say beside the thing, and no catalogue needs to."""
EXPLORING = _words(
    "idea ideas gift gifts present presents something anything popular trending best bestseller "
    "bestsellers new arrivals arrival recommend recommendation recommendations recommended suggest "
    "suggestion suggestions inspiration inspire what which surprise cool nice interesting browse "
    "stuff things latest top favourites favorites hot unique fun useful"
)
"""Words of those who do not know yet what they want."""
EXPLORING_CHINESE = _words(
    "推荐 礼物 送什么 有什么 什么好 热门 新品 随便 好物 灵感 惊喜 看看 送礼 爆款 热销 新款 逛逛 "
    "买什么 好东西"
)

RECIPIENTS = {
    "daughter": "daughter daughters 女儿 闺女",
    "son": "son sons 儿子",
    "wife": "wife 老婆 妻子 太太 媳妇",
    "husband": "husband 老公 丈夫 先生",
    "mother": "mother mom mum mommy mummy mama 妈妈 母亲 老妈",
    "father": "father dad daddy papa 爸爸 父亲 老爸",
    "parents": "parents 父母 爸妈",
    "grandmother": "grandmother grandma granny nana 奶奶 外婆 姥姥",
    "grandfather": "grandfather grandpa granddad 爷爷 外公 姥爷",
    "sister": "sister sisters 姐姐 妹妹",
    "brother": "brother brothers 哥哥 弟弟",
    "girlfriend": "girlfriend 女朋友 女友",
    "boyfriend": "boyfriend 男朋友 男友",
    "friend": "friend friends 朋友 闺蜜",
    "colleague": "colleague colleagues coworker coworkers 同事",
    "boss": "boss 老板 领导",
    "teacher": "teacher teachers 老师",
    "baby": "baby babies newborn infant toddler toddlers 宝宝 婴儿 新生儿",
    "children": "child children kid kids 孩子 小孩 儿童 小朋友",
    "girl": "girl girls 女孩 女生",
    "boy": "boy boys 男孩 男生",
    "women": "woman women her ladies lady 女士 女人 女性",
    "men": "man men him gentlemen 男士 男人 男性",
    "elderly": "elderly seniors 老人 长辈",
    "niece": "niece nieces 侄女 外甥女",
    "nephew": "nephew nephews 侄子 外甥",
    "aunt": "aunt auntie 阿姨 姑姑",
    "uncle": "uncle 叔叔 舅舅",
}
"""Whom something is for: a name, and the words for it."""
RECIPIENT_OF_WORD = {word: name for name, words in RECIPIENTS.items() for word in words.split()}

KNOWN_WORDS = STOP_WORDS | ASKING | EXPLORING | frozenset(RECIPIENT_OF_WORD)
"""Never taken for a misspelled word of the catalogue."""
STOP_KEYS = frozenset(key_of(word) for word in STOP_WORDS)
_EMPTY_CHINESE = EXPLORING_CHINESE | {word for word in ASKING if not word.isascii()}
EMPTY_KEYS = frozenset(key_of(word) for word in STOP_WORDS | ASKING | EXPLORING) | frozenset(
    unit.key for word in _EMPTY_CHINESE for unit in split_units(word)
)
"""Units that name nothing in a catalogue."""
