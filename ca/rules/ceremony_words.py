"""A digest as words that people read aloud and compare. Ring 1: pure.

Each of the first twelve octets is one of 256 short English words that are hard to mishear for one another: 96 bits. Beside the whole SHA-256,
never in its place.
"""

from __future__ import annotations

from typing import Final

COUNT: Final = 12

_TEXT: Final = """
    acorn actor adobe agent album alley amber anchor angle ankle apple apron arbor arrow atlas attic autumn avenue axle bacon
    badge bagel bakery bamboo banjo barley barrel basket beacon beaver bench berry bicycle birch blanket blossom bonnet border bottle boulder
    bracket branch brass bread brick bridge bronze brush bucket buffalo bugle bundle butter button cabin cactus camel camera canal candle
    canoe canyon carbon carpet carrot castle cedar cellar cement chalk cherry chess chimney cider circus citrus clarinet clover cobalt coconut
    comet compass copper coral cotton cradle crater crayon cricket crimson crown crystal curtain cymbal daisy dancer delta denim desert diamond
    dinner doctor dolphin domino donkey dragon drawer drum eagle earth echo eclipse elbow ember emerald engine envelope fabric falcon
    feather fence fiddle finger flannel flute forest fossil fountain fox funnel galaxy garden garlic gazelle geyser ginger giraffe glacier
    glove goblet granite grape gravel guitar hammer harbor harvest hazel helmet heron hickory honey horizon hotel hunter iceberg igloo
    indigo insect island ivory jacket jaguar jasmine jelly jigsaw jungle kayak kernel kettle kitchen kitten ladder lagoon lantern laurel
    lemon library lilac lizard lobster locket lotus lumber magnet mango maple marble meadow melon mirror mitten monkey mosaic muffin
    museum napkin nectar needle nickel noodle nutmeg oasis ocean octopus olive onion opal orchard otter oxygen oyster paddle panther
    papaya parcel parrot pebble pelican pencil pepper piano pigeon pilot plaza pocket pollen poplar prairie pretzel puzzle quartz rabbit
    radar raven ribbon river rocket saddle saffron salmon sandal satin scarlet shovel silver sparrow spruce sugar sunset
    tablet temple tulip tunnel velvet walnut
"""
WORDS: Final = tuple(_TEXT.split())
assert len(set(WORDS)) == len(WORDS) == 256, len(WORDS)


def words(digest: bytes) -> str:
    """The first twelve octets of a digest, in words; a hyphen in each group of four, groups apart, so that a place is not lost."""
    spoken = [WORDS[octet] for octet in digest[:COUNT]]
    return "  ".join("-".join(spoken[at : at + 4]) for at in range(0, COUNT, 4))
