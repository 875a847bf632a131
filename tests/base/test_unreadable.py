"""What cannot be read as samples is refused with words that help."""

from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest
from PIL import Image

from tests.base.container_helpers import (
    COUNTS,
    GREY,
    KIND,
    RGB,
    Column,
    E,
    Listed,
    Table,
    pictures,
    pixelwise,
    short,
)
from tests.instances import EVERYONE, LOST_CLUSTERS

# Clusters are lost by fits as short as these, which is announced, and not what is tested here.
pytestmark = LOST_CLUSTERS
TEXTS = ["I like trains", "so do I", "..."] * 8
EMBED = r"X is a list of texts, X\[0\]='I like trains'. Embed texts first: .*encode\(X\)"
UNREADABLE = {
    "a list of texts": (TEXTS, EMBED),
    "a tuple of texts": (tuple(TEXTS), EMBED),
    "an array of texts": (np.array(TEXTS), EMBED),
    "an object array of texts": (np.array(TEXTS, dtype=object), EMBED),
    "a series of texts": (pd.Series(TEXTS), EMBED),
    "a polars series of texts": (pl.Series(TEXTS), EMBED),
    "a column of texts": (Column(TEXTS), EMBED),
    "a Dataset of texts": (Listed(TEXTS), "item 0 is a str. Let the Dataset .* Embed texts first"),
    "a table": (
        Table(e=E.tolist(), label=KIND),
        r"item 0 is a dict with the columns 'e', 'label'. Pass one of them, for example X\['e'\]",
    ),
    "several tables": ({"train": Table(e=E)}, r"type dict\. .* one of its values, such as X\['tr"),
    "a column of numbers": (Column(KIND.tolist()), "item 0 is a int. Let the Dataset return"),
    "a column of grey arrays": (Column(GREY), r"has shape \(8, 8\). Grey images need an axis"),
    "a column of pictures of two sizes": (
        Column(pictures(RGB[:1]) + pictures(RGB[1:, :6])),
        r"item 1 has shape \(3, 6, 8\), but item 0 has \(3, 8, 8\).*resize or pad them",
    ),
    "a list of pictures of two sizes": (
        pictures(RGB[:20]) + pictures(RGB[20:, :6]),
        r"images of 2 sizes: 8 x 8 \(20 of them\), 8 x 6 \(4 of them\). .*ImageOps.fit\(image",
    ),
    "a series of pictures of two sizes": (
        pd.Series(pictures(RGB[:20]) + pictures(RGB[20:, :6])),
        r"images of 2 sizes: 8 x 8 \(20 of them\), 8 x 6 \(4 of them\). .* a list of paths",
    ),
    "a list of pictures of 8 and of 16 bits": (
        pictures(GREY[:12]) + [Image.fromarray(x) for x in COUNTS[12:]],
        r"images of 8 bits and of more \(modes I;16, L\), .* Convert them to one mode",
    ),
    "a list of pictures and nothing": ([*pictures(RGB), None], r"X\[24\] is a NoneType, but X"),
    "a list of images of two sizes": (
        [RGB[0], RGB[1, :6]] * 12,
        r"X\[1\] has shape \(6, 8, 3\), but X\[0\] has shape \(8, 8, 3\). All samples need one sh",
    ),
    "a series of vectors of two lengths": (
        pd.Series([E[0], E[1, :3]] * 12),
        r"X\[1\] has shape \(3,\), but X\[0\] has shape \(4,\). All samples need one shape",
    ),
    "a series with a vector missing": (
        pd.Series([*E[:23], np.nan]),
        r"X\[23\] is a float, but X\[0\] has shape \(4,\). .* leave out what is missing",
    ),
    "a column of lists of two lengths": (Column([[1.0, 2.0], [3.0]] * 12), "inhomogeneous shape"),
    "a series with a path missing": (pd.Series([Path(__file__), None] * 12), r"X\[1\] is None"),
}  # fmt: skip


@pytest.mark.parametrize("kind", UNREADABLE)
def test_it_says_what_to_do_about(kind):
    X, message = UNREADABLE[kind]
    with pytest.raises((ValueError, TypeError), match=f"(?s){message}"):
        pixelwise().fit(X)


@EVERYONE
@pytest.mark.parametrize("kind", ["a list of texts", "a table"])
def test_everyone_says_what_to_do_about(estimator, kind):
    X, message = UNREADABLE[kind]
    with pytest.raises(ValueError, match=message):
        short(estimator).fit(X)
    model = short(estimator).fit(E)
    with pytest.raises(ValueError, match=message):
        model.transform(X)
