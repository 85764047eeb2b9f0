"""What may be the unit after a number, as in "5 apples" and "5cm", rather than a part of its value, as in "5x"."""

import re

# Units that may stand directly behind a number. Other single letters are variables, as in "4x", or change the number.
SHORT_UNITS = (
    "nm μm mm cm dm km m μg mg kg g lbs lb oz ml cl dl l ns ms min hrs hr h s ft in yd mi mph kmh kph rpm kb mb gb tb "
    "hz khz mhz ghz kw mw kwh kj kcal cal ha eur usd gbp °c °f ° % 元 円 个 個 人 年 天 岁"
)
# Multiples and parts of one. A plural with -s is meant too.
MAGNITUDES = (
    "dozen hundred thousand million billion trillion quadrillion lakh lac crore myriad hundert tausend mil mille "
    "milliard milliarde milliarden millionen millone millon millón mio mrd mln bln mn bn tn tsd k half halve third "
    "fourth fifth sixth seventh eighth ninth tenth hundredth thousandth millionth"
)
# Words after which the number has another value, or is one of several.
OTHER_WORDS = (
    "and at but by cubed divided factorial fold less log ln mod more minus nor not or over percent pi plus root sqrt "
    "squared tau than times to versus vs st nd rd th xy xz yz xyz ab abc bc "
    "two three four five six seven eight nine ten eleven twelve"
)
NO_UNITS = frozenset(
    [*OTHER_WORDS.split(), *MAGNITUDES.split(), *(f"{magnitude}s" for magnitude in MAGNITUDES.split())]
)
# Thousands, millions, billions, as in "5M". In small letters, "5m" are metres.
CAPITAL_MAGNITUDE = re.compile(r"\d\s*[KMBT]\b")

_SHORT = "|".join(sorted(map(re.escape, SHORT_UNITS.split()), key=len, reverse=True))
_UNIT = re.compile(
    rf"(?:\s*(?:{_SHORT})(?:\s*/\s*(?:{_SHORT}))?(?![^\W\d_])|\s+[^\W\d_]{{2}})(?:[^\W\d_]|[ .,'/()°%]|-(?! )){{0,40}}"
)


def is_unit(text: str) -> bool:
    """Return whether normalised text after a number is a unit.

    A unit is a word of two letters or more after a space, or a short unit such as "cm", also directly behind the
    number. Further words may follow, but none that change the number.
    """
    return bool(_UNIT.fullmatch(text)) and not NO_UNITS & set(re.findall(r"[^\W\d_]+", text))
