"""Character n-grams with interpolated Kneser-Ney smoothing: what a table of counts predicts, the baseline of a language model.

    p_k(c | context) = max(count(context c) - d, 0) / total(context) + d types(context) / total(context) p_{k-1}(c | shorter context)

total and types count the characters and the different characters that followed the context; where it never occurred p_{k-1} stands
alone, and p_0 = 1/V. The highest order counts n-grams, the lower ones the different characters that stood before theirs (a
continuation that follows one context only says little about others). The discount d is chosen on the last tenth of the training
part, with the counts of the rest, and everything is counted again on all of it.

Source: Kneser & Ney 1995; Chen & Goodman 1999, section 2.7 (interpolated).
"""

import numpy as np

DISCOUNTS = tuple(k / 10 for k in range(1, 10))
MOST = 2**62  # codes of n-grams are 64-bit integers


def bits(train: np.ndarray, held: np.ndarray, vocabulary: int, order: int) -> float:
    """Bits per character of `held`, which follows `train`, under the n-grams of this order."""
    cut = len(train) - max(len(train) // 10, 1)
    trial = [_mean_bits(train[:cut], train[cut:], vocabulary, order, discount) for discount in DISCOUNTS]
    return _mean_bits(train, held, vocabulary, order, DISCOUNTS[int(np.argmin(trial))])


def _mean_bits(train: np.ndarray, held: np.ndarray, vocabulary: int, order: int, discount: float) -> float:
    return float(-np.log2(probabilities(train, held, vocabulary, order, discount)).mean())


def probabilities(train: np.ndarray, held: np.ndarray, vocabulary: int, order: int, discount: float) -> np.ndarray:
    """Of every character of `held`, given those before it: [len(held)]."""
    if vocabulary**order > MOST:
        raise ValueError(f"{order}-grams of {vocabulary} characters cannot be numbered; take a lower order")
    seen = np.concatenate([train[len(train) - (order - 1) :], held])
    p = np.full(len(held), 1 / vocabulary)
    for k in range(1, order + 1):
        grams, counts = _counted(train, vocabulary, k, order)
        context, first, types = np.unique(grams // vocabulary, return_index=True, return_counts=True)
        total = np.add.reduceat(counts, first)
        asked = _codes(seen, vocabulary, k)[-len(held) :]
        of_context = _looked_up(context, np.stack([total, types], axis=1), asked // vocabulary)
        of_gram = _looked_up(grams, counts[:, None], asked)[:, 0]
        known = np.maximum(of_context[:, 0], 1)
        mixed = (np.maximum(of_gram - discount, 0) + discount * of_context[:, 1] * p) / known
        p = np.where(of_context[:, 0] > 0, mixed, p)
    return p


def _counted(train: np.ndarray, vocabulary: int, k: int, order: int) -> tuple[np.ndarray, np.ndarray]:
    """(the different k-grams, sorted; how often each occurs, or below the highest order after how many characters)."""
    if k == order:
        return np.unique(_codes(train, vocabulary, k), return_counts=True)
    longer = np.unique(_codes(train, vocabulary, k + 1))
    return np.unique(longer % vocabulary**k, return_counts=True)


def _codes(ids: np.ndarray, vocabulary: int, k: int) -> np.ndarray:
    """A number for the k-gram that ends at each place from k - 1 on."""
    code = np.zeros(len(ids) - k + 1, np.int64)
    for j in range(k):
        code = code * vocabulary + ids[j : j + len(code)]
    return code


def _looked_up(known: np.ndarray, values: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """The row of each code that is asked for, 0 where it is not known."""
    place = np.minimum(np.searchsorted(known, asked), len(known) - 1)
    return np.where((known[place] == asked)[:, None], values[place], 0)
