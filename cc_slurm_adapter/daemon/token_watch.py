"""Says in time that the token for cc-backend expires: at the start, once a day, and as a fault until it is replaced."""

from __future__ import annotations

import time
from collections.abc import Callable

from cc_slurm_adapter.daemon.checks.token import SUBJECT, find_expiry
from cc_slurm_adapter.errors import ConfigError
from cc_slurm_adapter.log import log_findings
from cc_slurm_adapter.system.quantities import DAY


class TokenWatch:
    """Looks at the token again and again. Once it has expired, cc-backend refuses it, and that is logged elsewhere."""

    def __init__(
        self,
        read_token: Callable[[], str],
        key: str,
        settle: Callable[..., None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`key` is the key of the configuration that has the token. `read_token` reads it again each time.

        `settle` is called with a subject and with all that is to be known about it from now on.
        """
        self._read_token = read_token
        self._key = key
        self._settle = settle
        self._clock = clock
        self._logged_at = float("-inf")

    def look(self) -> None:
        """Find out whether the token expires soon. A warning is logged once a day, and ends with a new token."""
        now = self._clock()
        try:
            found = find_expiry(self._read_token(), self._key, now)
        except ConfigError:
            return  # whoever sends it says so
        self._settle(SUBJECT, *filter(None, [found]))
        if found is None:
            self._logged_at = float("-inf")
        elif not 0 <= now - self._logged_at < DAY:  # a clock may be set back
            self._logged_at = now
            log_findings(found)
