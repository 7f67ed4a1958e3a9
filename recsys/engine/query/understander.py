"""From a search text to what it means, by the words of the catalogue it is put to."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
import pyarrow as pa

from recsys.data.text import clean_texts
from recsys.engine.query.intent import INTENTS, IntentClassifier, intent_features
from recsys.engine.query.lexicon import Lexicon, slot_kind
from recsys.engine.query.prototypes import Encoder, Prototypes
from recsys.engine.query.query_words import KNOWN_WORDS
from recsys.engine.query.slots import find_slots
from recsys.engine.query.spelling import Speller
from recsys.engine.query.synthetic_queries import SyntheticQuery, synthetic_queries
from recsys.engine.query.titles import TitleIndex, TitleMatch
from recsys.engine.query.understanding import (
    MAX_QUERY_CHARS,
    MAX_SLOTS,
    Correction,
    Language,
    QueryUnderstanding,
    Slot,
)
from recsys.engine.query.units import CJK, Unit, fold, split_units

NUM_TRAINING_QUERIES = 1_500
_NOTHING_ASKED = [SyntheticQuery("", "exploratory", (), -1, None)] * 20
"""Empty queries among them: who asks for nothing wants to look around."""
_MOST_MEANT = 3
_MAX_CORRECTED = 16
"""Units whose spelling is looked at: each may be compared with the whole vocabulary."""
_MAX_READ_CHARS = 4 * MAX_QUERY_CHARS
_MIN_PROTOTYPE = 0.6
_MIN_FOREIGN_WORDS = 3
_OTHER_SCRIPT = re.compile(rf"[^\W\d_a-zA-Z\u00c0-\u024f{CJK}]|[\u3040-\u30ff]")
_HAN = re.compile("[\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003134f]")
_LATIN = re.compile("[a-zA-Z\u00c0-\u024f]")

DetectLanguages = Callable[[pl.Series], pl.Series]
"""Texts to two-letter codes, null where not sure: `recsys.data.text.detect_languages`."""


@dataclass(frozen=True, slots=True)
class _Reading:
    """A query as it was meant: places of `units` and `slots` are those in `meant`."""

    normalised: str
    corrections: list[Correction]
    meant: str
    units: list[Unit]
    slots: list[Slot]
    title: TitleMatch


class QueryUnderstander:
    """Understands queries for one catalogue. Reads only, so threads may share it."""

    def __init__(
        self,
        items: pa.Table,
        classifier: IntentClassifier | None = None,
        *,
        prototypes: Sequence[Prototypes] = (),
        encode: Encoder | None = None,
        detect_languages: DetectLanguages | None = None,
        seed: int = 0,
    ) -> None:
        """Learn the words of `items` (title, and as far as there are any category, brand, price
        and other columns), and the intents from queries made of them unless `classifier` is given.

        `prototypes` and `encode` name a category or brand where no word does.
        """
        self._lexicon = Lexicon(items)
        self._speller = Speller(self._lexicon.words)
        self._titles = TitleIndex(self._lexicon.titles)
        self._prototypes, self._encode = prototypes, encode
        self._detect_languages = detect_languages
        self.classifier = classifier or self._fit(seed)

    @property
    def lexicon(self) -> Lexicon:
        """The words of the catalogue."""
        return self._lexicon

    def understand(self, text: str) -> QueryUnderstanding:
        """Read a query. Any text gives an answer, the empty one too.

        Of a long text the first `MAX_QUERY_CHARS` characters count.
        """
        text = text.encode("utf-8", "replace").decode()
        reading = self._read(normalise([text])[0], self._encode)
        probabilities = self.classifier.probabilities(self._features(reading))
        best = int(probabilities.argmax())
        return QueryUnderstanding(
            text=text,
            normalised=reading.normalised,
            language=self._language(reading),
            corrections=tuple(reading.corrections),
            corrected=reading.meant if reading.corrections else None,
            intent=INTENTS[best],
            confidence=round(float(probabilities[best]), 4),
            slots=tuple(_as_written(slot, reading.corrections) for slot in reading.slots),
        )

    def _fit(self, seed: int) -> IntentClassifier:
        drawn = synthetic_queries(self._lexicon, NUM_TRAINING_QUERIES, seed)
        queries = drawn + _NOTHING_ASKED
        texts = normalise([query.text for query in queries])
        readings = [self._read(text, None) for text in texts]
        # A title that is part of many others names no one item.
        pairs = [
            (self._features(reading), query.intent)
            for query, reading in zip(queries, readings, strict=True)
            if query.intent != "navigational" or reading.title.matches <= _MOST_MEANT
        ]
        features, intents = zip(*pairs, strict=True)
        return IntentClassifier.fit(np.array(features), intents)

    def _read(self, normalised: str, encode: Encoder | None) -> _Reading:
        corrections, sureness = self._correct(split_units(normalised))
        meant = _corrected(normalised, corrections)
        units = split_units(meant)
        slots = find_slots(fold(meant), units, sureness, self._lexicon)
        if encode is not None and units:
            slots = [*slots, *self._nearest(meant, slots, encode)][:MAX_SLOTS]
        title = self._titles.best(units)
        return _Reading(normalised, corrections, meant, units, slots, title)

    def _correct(self, units: list[Unit]) -> tuple[list[Correction], list[float]]:
        read = [unit.word for unit in units[:_MAX_CORRECTED]]
        found = [self._speller.correct(word) for word in read]
        found += [None] * (len(units) - len(read))
        corrections = [
            Correction(start=unit.start, end=unit.end, word=better[0], confidence=better[1])
            for unit, better in zip(units, found, strict=True)
            if better
        ]
        return corrections, [better[1] if better else 1.0 for better in found]

    def _nearest(self, normalised: str, slots: list[Slot], encode: Encoder) -> list[Slot]:
        filled = {slot.column for slot in slots if not slot.negated}
        missing = [p for p in self._prototypes if p.column not in filled]
        if not missing:
            return []
        vector = np.asarray(encode([normalised]))[0]
        found = [(p.column, p.nearest(vector)) for p in missing]
        return [
            Slot(
                kind=slot_kind(column),
                column=column,
                value=best[0],
                confidence=round(best[1], 3),
            )
            for column, best in found
            if best and best[1] >= _MIN_PROTOTYPE
        ]

    def _features(self, reading: _Reading) -> np.ndarray:
        folded = fold(reading.meant)
        return intent_features(folded, reading.units, reading.slots, reading.title, self._lexicon)

    def _language(self, reading: _Reading) -> Language:
        by_script = script_language(reading.normalised)
        unknown = [
            unit
            for unit in reading.units
            if unit.word not in KNOWN_WORDS and not self._lexicon.is_known(unit)
        ]
        foreign = 2 * len(unknown) > len(reading.units) and len(unknown) >= _MIN_FOREIGN_WORDS
        if by_script != "en" or not foreign or self._detect_languages is None:
            return by_script
        language = self._detect_languages(pl.Series([reading.normalised]))[0]
        return "en" if language in ("en", None) else "other"


def normalise(texts: Sequence[str]) -> list[str]:
    """One line each of NFKC without markup and invisible characters; at most `MAX_QUERY_CHARS`."""
    return (
        clean_texts([text[:_MAX_READ_CHARS] for text in texts], MAX_QUERY_CHARS)
        .fill_null("")
        .to_list()
    )


def script_language(text: str) -> Language:
    """By script alone: `mixed` is Chinese and Latin letters, `other` any further script or none."""
    han, latin = bool(_HAN.search(text)), bool(_LATIN.search(text))
    if _OTHER_SCRIPT.search(text) or not (han or latin):
        return "other"
    if han and latin:
        return "mixed"
    return "zh" if han else "en"


def _corrected(text: str, corrections: Sequence[Correction]) -> str:
    for correction in reversed(corrections):
        text = text[: correction.start] + correction.word + text[correction.end :]
    return text


def _as_written(slot: Slot, corrections: Sequence[Correction]) -> Slot:
    """The slot with its places in the text before it was corrected."""
    if slot.start is None or slot.end is None or not corrections:
        return slot
    start, end, longer = slot.start, slot.end, 0
    for correction in corrections:
        place = correction.start + longer + len(correction.word)
        change = len(correction.word) - (correction.end - correction.start)
        start -= change if place <= slot.start else 0
        end -= change if place <= slot.end else 0
        longer += change
    return slot.model_copy(update={"start": start, "end": end})
