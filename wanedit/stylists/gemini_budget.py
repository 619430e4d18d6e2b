"""A cap on calls and dollars that holds while several calls are under way at once."""

from dataclasses import dataclass

from wanedit.stylists.gemini_errors import RESUME, BudgetExceededError


@dataclass
class Budget:
    """Counts what was spent and what is reserved for calls under way.

    Attributes:
        max_calls, max_price: the caps; None for none.
        calls: requests sent, retries counted.
        spent: dollars of answered calls, and of calls that may be billed though no answer came.
        reserved: dollars set aside for calls under way.
    """

    max_calls: int | None
    max_price: float | None
    calls: int = 0
    spent: float = 0.0
    reserved: float = 0.0

    def reserve(self, dollars: float) -> None:
        """Count one call and set its expected price aside.

        Raises:
            BudgetExceededError: it would pass a cap; nothing is counted then.
        """
        if self.max_calls is not None and self.calls + 1 > self.max_calls:
            raise BudgetExceededError(
                f"stopped before call {self.calls + 1}: max_calls is {self.max_calls}. {RESUME}"
            )
        if self.max_price is not None and self.spent + self.reserved + dollars > self.max_price:
            raise BudgetExceededError(
                f"stopped before call {self.calls + 1}: ${self.spent + self.reserved:.4f} spent or under way and "
                f"${dollars:.4f} expected for it would pass max_price ${self.max_price:g}. {RESUME}"
            )
        self.calls += 1
        self.reserved += dollars

    def settle(self, reserved: float, actual: float) -> None:
        """Replace a reservation by what the call cost; 0 for one that failed unbilled."""
        self.reserved = max(0.0, self.reserved - reserved)
        self.spent += actual
