"""Decides how many drafted tokens a step verifies, from what it costs and how good the drafts of the row were so far.

A step that verifies n drafted tokens costs C(1 + n) and yields 1 + E(n) tokens, where E(n) is the expected number of
accepted ones. The control takes the n with the most expected tokens per cost, within a balance. It starts at `CREDIT`,
grows by `ALLOWANCE` with each step and by 1, the cost of a step of one token, with each accepted token, up to
`CAPACITY`. n drafted tokens take C(1 + n) - 1 from it, and it never falls below 0. So whatever is drafted, a row costs
at most `CREDIT` + `ALLOWANCE` * steps more than without drafts, and the rest of a row at most `CAPACITY` + `ALLOWANCE`
* steps. A row whose drafts are refused soon stops drafting, and tries again whenever the balance suffices.

The constants did best in simulations on answers of the shipped skills and on texts without a skill; none is critical.
"""

from __future__ import annotations

from collections.abc import Sequence

from .step_costs import StepCosts

CREDIT = 1.5  # in steps of one token
CAPACITY = 4.0
ALLOWANCE = 0.01
_TRUST = 2.0  # drafted tokens that a source's own probabilities count as
_MEMORY = 0.95  # weight that an observation keeps from one step to the next
_CERTAIN = 0.9  # no drafted token is taken as more certain


class SourceRecord:
    """How often one source of drafts was right in this row, compared with what it stated."""

    def __init__(self) -> None:
        self._right = self._stated = 0.0

    def corrected(self, probability: float) -> float:
        """The probability that a drafted token is accepted, for the one that the source states."""
        ratio = (self._right + _TRUST) / (self._stated + _TRUST)
        return min(probability * ratio, _CERTAIN)

    def add(self, probability: float, right: bool) -> None:
        """Count a drafted token that was verified, with the stated probability."""
        self._right += right
        self._stated += probability

    def fade(self) -> None:
        """Reduce the weight of earlier observations, so that a source that was refused is tried again."""
        self._right *= _MEMORY
        self._stated *= _MEMORY


class DraftControl:
    """The balance of one row.

    Args:
        costs: What a step costs.
    """

    def __init__(self, costs: StepCosts) -> None:
        self._costs, self._balance = costs, CREDIT

    def begin_step(self, probabilities: Sequence[float], forced: int = 0) -> int:
        """Choose how many drafted tokens the next step verifies, and take their cost from the balance.

        Args:
            probabilities: That each drafted token is accepted if those before it are.
            forced: Number of certain tokens before them, which the step verifies in any case.

        Returns:
            From 0 to the number of probabilities.
        """
        return self._choose(probabilities, forced, 0)[0]

    def begin_shared_step(self, probabilities: Sequence[float], forced: int, others: int) -> int | None:
        """As `begin_step`, for a row that can share its step with others instead of verifying a draft alone.

        Args:
            probabilities, forced: As for `begin_step`.
            others: At least 1. A step of n rows costs about as much as one of n tokens.

        Returns:
            None: sharing the step promises more tokens for its cost, even than verifying those that are forced.
        """
        before = self._balance
        count, rate = self._choose(probabilities, forced, others)
        if rate > (others + 1) / self._costs(others + 1):
            return count
        self._balance = before
        return None

    def _choose(self, probabilities: Sequence[float], forced: int, others: int) -> tuple[int, float]:
        """The best number of drafted tokens, and the tokens per cost of it and of the others' step."""
        self._balance = min(self._balance + ALLOWANCE, CAPACITY)
        apart = self._costs(others) if others else 0.0
        least = self._costs(1 + forced)
        tokens, likelihood = 1.0 + forced, 1.0
        best, best_rate, best_price = 0, (others + tokens) / (apart + least), 0.0
        for count, probability in enumerate(probabilities, 1):
            cost = self._costs(1 + forced + count)
            if cost - least > self._balance:
                break
            likelihood *= probability
            tokens += likelihood
            if (others + tokens) / (apart + cost) > best_rate:
                best, best_rate, best_price = count, (others + tokens) / (apart + cost), cost - least
        self._balance -= best_price
        return best, best_rate

    def accepted(self) -> None:
        """Add an accepted token to the balance."""
        self._balance = min(self._balance + 1, CAPACITY)
