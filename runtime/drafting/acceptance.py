"""Verifies a draft: determines the tokens that a step yields, which have the distribution of decoding without drafts.

A draft is a deterministic proposal: at each position, all its probability is on one token d. Let p be the distribution
that the sampler draws from at that position: processed logits, where the repetition penalty counts every token before,
accepted drafts included. The exact rule (Leviathan et al., arXiv 2211.17192) accepts d with probability p(d), and
otherwise draws from p without d, renormalised: r(x) = p(x) / (1 - p(d)) for x != d.

Here x is drawn from p, and d is accepted if x = d. That is the same rule: x = d has probability p(d), and given x != d,
x has the distribution r. Either way the step yields x, which has the distribution p. A refused draft changes the
context of the positions behind it, so nothing is drawn there: each token is drawn given exactly the tokens before it.
By induction the answer has the distribution of decoding without drafts.

Each token takes one random number, so equal logits and seeds even give equal answers with and without drafts. In greedy
decoding p is on one token, and the sampler decides ties.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

Logits = npt.NDArray[np.floating]


def verify(sample: Callable[[Logits], int], logits: Logits, draft: Sequence[int]) -> Iterator[int]:
    """The tokens that a step yields: the draft as far as the sampler agrees, then the token that the sampler takes.

    Args:
        sample: Takes the next token, given logits [V], and remembers it, for example a `Sampler`. It is called once for
            each token, only when that token is asked for: a caller that stops at the end of a turn has drawn nothing
            behind it.
        logits: [1 + n, V]: after the token before the draft, and after each drafted token.
        draft: The n drafted tokens.

    Yields:
        1 to 1 + n token ids.
    """
    for row, drafted in zip(logits, [*draft, None], strict=True):
        token = sample(row)
        yield token
        if token != drafted:
            return
