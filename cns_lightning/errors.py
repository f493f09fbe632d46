"""What to tell a user whose input is wrong: where, what, and how to fix it."""

from __future__ import annotations

EXIT_DONE = 0
EXIT_ERROR = 1
EXIT_USER_ERROR = 2


class UserError(Exception):
    """The user's input is wrong; the program says so in one sentence and ends with exit code 2.

    Args:
        where: file and key, or flag.
        problem: found against needed, a phrase that follows ``where``.
        remedy: what the user can do, a sentence without its full stop.
    """

    def __init__(self, where: str, problem: str, remedy: str) -> None:
        self.where, self.problem, self.remedy = where, problem, remedy
        super().__init__(f"{where}: {problem}. {remedy}")


class RunStopped(Exception):
    """A run cannot go on by itself; the program says why in one sentence and ends with exit code 1."""


class SeveralUserErrors(UserError):
    """All problems of one input, a line each."""

    def __init__(self, problems: list[UserError]) -> None:
        super().__init__(problems[0].where, problems[0].problem, problems[0].remedy)
        self.problems = problems

    def __str__(self) -> str:
        return "\n".join(str(problem) for problem in self.problems)


class Problems:
    """Collects the problems of one input, so that all of them are said at once."""

    def __init__(self) -> None:
        self.found: list[UserError] = []

    def add(self, where: str, problem: str, remedy: str) -> None:
        """Notes one problem."""
        self.found.append(UserError(where, problem, remedy))

    def raise_if_any(self) -> None:
        """Stops if a problem was noted.

        Raises:
            UserError: one that lists them all.
        """
        if len(self.found) == 1:
            raise self.found[0]
        if self.found:
            raise SeveralUserErrors(self.found)
