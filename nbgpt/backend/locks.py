"""A reentrant lock that a Ctrl-C leaves free or held, as the `with` statement says, in Python 3.14 too."""

from __future__ import annotations

import sys
import threading

if sys.version_info < (3, 14):
    RLock = threading.RLock
else:
    import _thread

    class RLock(_thread.RLock):
        """A reentrant lock.

        Since Python 3.14, `with` calls `__enter__` as it calls any function, and an interrupt may come between the call
        and the block: then `threading`'s own locks are taken, and nobody gives them back.
        """

        def __enter__(self) -> bool:
            """Take the lock. If this is interrupted, it is not taken."""
            n = self._recursion_count()
            try:
                return self.acquire()
            except BaseException:
                if self._recursion_count() > n:
                    self.release()
                raise
