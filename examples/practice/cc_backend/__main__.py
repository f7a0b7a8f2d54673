"""python3 -m examples.practice.cc_backend"""

from __future__ import annotations

from examples.practice.cc_backend import main

main()
