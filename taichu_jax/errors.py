"""The one exception that is meant for the person at the keyboard."""


class UserError(Exception):
    """Bad input, said in one line: the key, the value and the valid choices.

    Launchers print the message without a traceback and exit with code 2.
    """
