"""scikit-learn's digits: 1,797 handwritten digits of 8x8 pixels that come with the package.

Source: E. Alpaydin, C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository, 1998.
"""

import numpy as np

from nas.data.images import ArrayImages, Found, survey
from nas.data.splits import stratified


def open_digits() -> Found:
    """Opens the digits. They have no test split: a fixed stratified fifth is set aside as one."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    pixels = np.rint(digits.images * (255 / 16)).astype(np.uint8)  # stored as 0..16
    labels = digits.target.astype(np.int64)
    train, test = (
        ArrayImages(pixels[index], labels[index], "digits") for index in stratified(labels, round(len(labels) / 5))
    )
    return Found("digits", tuple(map(str, digits.target_names)), train, lambda: test, survey(train))
