"""python3 -m examples.practice.demo"""

from __future__ import annotations

import sys

from examples.practice.demo import main

sys.exit(main())
