"""Errors of code that is not ours: which ones are caught, and what they say in one line."""

# What programs of the user and torch's functions raise for values that they cannot use.
FAILURES = (RuntimeError, TypeError, LookupError, ArithmeticError, AttributeError, ValueError)


def first_line(error: BaseException) -> str:
    """The first line of an error's message with text, or the name of its class if there is none.

    >>> first_line(ValueError("\\nno rows\\nin this file")), first_line(KeyboardInterrupt())
    ('no rows', 'KeyboardInterrupt')
    """
    lines = (line.strip() for line in str(error).splitlines())
    return next(filter(None, lines), type(error).__name__)


def one_line(error: BaseException) -> str:
    """The whole message of an error on one line, or the name of its class if it has none.

    >>> one_line(ValueError("no rows\\n  in this file")), one_line(RuntimeError())
    ('no rows in this file', 'RuntimeError')
    """
    return " ".join(str(error).split()) or type(error).__name__
