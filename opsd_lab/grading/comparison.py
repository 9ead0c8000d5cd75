"""Is the answer what the reference says: True, False, or None when that cannot be decided. Exact where both are exact."""

from collections.abc import Iterable

from opsd_lab.grading.readings import (
    DOTS,
    Broken,
    Choice,
    Clock,
    Items,
    Named,
    Nothing,
    Ratio,
    Reading,
    Readings,
    RealSet,
    Relation,
    Truth,
    Value,
    Words,
)
from opsd_lab.grading.relations import LETTER, relation_of
from opsd_lab.grading.trees import exact, names, to_json
from opsd_lab.grading.value_comparison import ValueComparison

UNORDERED, ORDERED = ("list", "set"), ("tuple", "brackets", "matrix")


class Comparison(ValueComparison):
    """Holds readings against each other, of whatever kind."""

    def decide(self, gold: Readings, answer: Readings) -> bool | None:
        """Return whether any way to read the answer is any way to read the reference."""
        if not gold.sure or not (answer.sure or answer.doubtful):
            return None
        found = []
        for wanted in gold.sure:
            for given in answer.sure:
                found.append(self.equal(wanted, given))
                if found[-1] and not _clocks_differ(gold, answer, wanted):
                    return True
        if True in found or None in found:
            return None
        doubtful = [(w, g) for w in (*gold.sure, *gold.doubtful) for g in (*answer.sure, *answer.doubtful)]
        doubtful = [(w, g) for w, g in doubtful if w in gold.doubtful or g in answer.doubtful]
        return None if any(self.equal(w, g) is not False for w, g in doubtful) or not answer.sure else False

    def equal(self, gold: Reading, answer: Reading) -> bool | None:
        """Return whether two readings are the same answer."""
        match gold, answer:
            case (_, Broken()):
                return False
            case (Value(), Value()):
                return self.values(gold, answer)
            case (Named(), Named()):
                same = self.equal(gold.reading, answer.reading)
                return same if gold.name == answer.name or not same else self._renamed(gold, answer)
            case (Relation() | Named(), Relation() | Named()) if (a := relation_of(gold)) and (b := relation_of(answer)):
                return self.relations(a, b)
            case (Named(), _):
                return self.equal(gold.reading, answer)
            case (_, Named()) if not isinstance(gold, Relation):
                return self.equal(gold, answer.reading)
            case (Items(), Items()):
                return self.items(gold, answer)
            case (Items(kind="list" | "set"), Value()):
                return self.items(gold, Items("list", (answer,)))
            case (Value(), Items(kind="list" | "set")):
                return self.items(Items("list", (gold,)), answer)
            case (RealSet(), RealSet()):
                same = self._all(self._piece_in(piece, answer) for piece in gold.pieces)
                same = same and self._all(self._piece_in(piece, gold) for piece in answer.pieces)
                return None if same and gold.name and answer.name and gold.name != answer.name else same
            case (Ratio(), Ratio()):
                return self._ratios(gold, answer)
            case (Ratio(), Value()) | (Value(), Ratio()):
                return self._ratio_or_value(gold, answer)
            case (Clock(), Clock()):
                return _clocks(gold, answer)
            case (Words(), Words()):
                same = gold.text == answer.text
                return same or (False if " " not in gold.text + answer.text else None)
            case (_, Words()) | (RealSet(), Relation()) | (Relation(), RealSet()) | (Words(), Truth() | Nothing() | Choice()):
                return None
            case (Value(tree=("name", _)), Choice()) | (Choice(), Value(tree=("name", _))):
                return False
            case (Value() | Items() | RealSet(), Choice()):  # the letter may stand for the value, unless the reference has letters
                return False if isinstance(gold, Value) and names(gold.tree) else None
        return type(gold) is type(answer) and gold == answer

    def relations(self, gold: Relation, answer: Relation) -> bool | None:
        """Return whether two relations say the same: differences of their sides are multiples, or their sides are the same."""
        if sorted(gold.signs) != sorted(answer.signs):
            return False if {*gold.signs, *answer.signs} <= {"=", "!="} else None
        if len(gold.signs) > 1:
            same = self._all(self.trees(a, b) for a, b in zip(gold.sides, answer.sides, strict=True))
            return same if same or not all(side[0] == "name" for side in (*gold.sides, *answer.sides)) else False
        a, b = (("+", r.sides[0], ("neg", r.sides[1])) for r in (gold, answer))
        self.questions += 1
        sign = self.ask("ratio", to_json(a), to_json(b))
        if sign in ("+", "-", "i"):
            return gold.signs[0] in ("=", "!=") or sign == "+"
        if gold.signs != ("=",):
            return False if sign == "no" and all(side[0] in ("name", "num") for side in (*gold.sides, *answer.sides)) else None
        if sign == "no":
            forth = self._put("implies", a, b)
            return False if forth is False or self._put("implies", b, a) is False else None
        return None

    def _renamed(self, gold: Named, answer: Named) -> bool | None:
        return False if LETTER.fullmatch(gold.name) and LETTER.fullmatch(answer.name) else None

    def items(self, gold: Items, answer: Items) -> bool | None:
        """Compare several readings, in order where the notation has an order."""
        named = {item.name for item in gold.items if isinstance(item, Named)}
        if DOTS in gold.items + answer.items:
            return self._dotted(gold, answer)
        if 1 < len(named) < len(gold.items):  # x = 1, y = 2 and x = 3, y = 4: which belong together is told by their order
            inorder = len(gold.items) == len(answer.items) and self._all(map(self.equal, gold.items, answer.items))
            return True if inorder else (False if self._as_sets(gold, answer) is False else None)
        pairwise = gold.kind in ORDERED or answer.kind in ORDERED
        if len(named) > 1 and not any(isinstance(item, Named) for item in answer.items):
            pairwise = True
        if not pairwise:
            return self._as_sets(gold, answer)
        if len(gold.items) != len(answer.items):
            return None if named and self._as_sets(gold, answer) else False
        same = self._all(self.equal(a, b) for a, b in zip(gold.items, answer.items, strict=True))
        kinds = {gold.kind, answer.kind}
        if same is False:
            return None if kinds & set(UNORDERED) and not named and self._as_sets(gold, answer) else False
        if "set" in kinds or (kinds == {"tuple", "brackets"} and len(gold.items) == 2):
            return None
        if kinds == {"matrix"} and gold.rows != answer.rows:
            vectors = all(item.rows in (1, len(item.items)) for item in (gold, answer))
            return None if vectors and same else False
        if "matrix" in kinds and len(kinds) > 1:
            grid = gold if gold.kind == "matrix" else answer
            return same if grid.rows in (1, len(grid.items)) else None
        return same

    def _dotted(self, gold: Items, answer: Items) -> bool | None:
        """Compare lists with dots in them: equal entries are equal, other ends are other lists, the rest is open."""
        if len(gold.items) == len(answer.items) and self._all(
            self.equal(a, b) for a, b in zip(gold.items, answer.items, strict=True)
        ):
            return True
        ends = gold.items[-1], answer.items[-1]
        return False if DOTS not in ends and self.equal(*ends) is False else None

    def _as_sets(self, gold: Items, answer: Items) -> bool | None:
        forth = self._all(self._any(self.equal(a, b) for b in answer.items) for a in gold.items)
        if forth is False:
            return False
        back = self._all(self._any(self.equal(a, b) for a in gold.items) for b in answer.items)
        return back if forth else (False if back is False else None)

    def _piece_in(self, piece: tuple, span: RealSet) -> bool | None:
        return self._any(
            self._all((piece[1] == other[1], piece[3] == other[3], self.trees(piece[0], other[0]), self.trees(piece[2], other[2])))
            for other in span.pieces
        )

    def _ratios(self, gold: Ratio, answer: Ratio) -> bool | None:
        if len(gold.parts) != len(answer.parts):
            return False
        first, other = gold.parts[0], answer.parts[0]
        pairs = zip(gold.parts[1:], answer.parts[1:], strict=True)
        return self._all(self.trees(("*", first, b), ("*", a, other)) for a, b in pairs)

    def _ratio_or_value(self, gold: Ratio | Value, answer: Ratio | Value) -> bool | None:
        ratio, value = (gold, answer) if isinstance(gold, Ratio) else (answer, gold)
        whole = exact(value.tree)
        if len(ratio.parts) != 2 or (whole is not None and whole.denominator == 1):
            return False
        return None if self.trees(("/", *ratio.parts), value.tree) is not False else False

    @staticmethod
    def _all(verdicts: Iterable[bool | None]) -> bool | None:
        open_ = False
        for verdict in verdicts:
            if verdict is False:
                return False
            open_ |= verdict is None
        return None if open_ else True

    @staticmethod
    def _any(verdicts: Iterable[bool | None]) -> bool | None:
        open_ = False
        for verdict in verdicts:
            if verdict:
                return True
            open_ |= verdict is None
        return None if open_ else False


def _clocks_differ(gold: Readings, answer: Readings, wanted: Reading) -> bool:
    """Whether both may be times of day while another reading of them agreed: 3:45 and 1:15 are one ratio, not one time."""
    times = [[way for way in readings.sure if isinstance(way, Clock)] for readings in (gold, answer)]
    return all(times) and not isinstance(wanted, Clock) and not _clocks(times[0][0], times[1][0])


def _clocks(gold: Clock, answer: Clock) -> bool | None:
    if gold.minutes == answer.minutes:
        return True
    if (gold.half is None) != (answer.half is None) and gold.minutes % 720 == answer.minutes % 720:
        bare = gold if gold.half is None else answer
        return bare.minutes < 780  # 1:00 to 12:59 may be before or after noon
    return False
