"""sacct of a big stand-in Slurm: runs that ended long ago, at equal distances, and are worked out when asked for.

    python3 sacct_program.py FOLDER ARGUMENT ...

One query at a time: a second one fails. Only little is imported. `history` lays out the folder.
"""

import fcntl
import os
import sys

FOLDER = sys.argv[1]
CHUNK = 1000


def read(name: str) -> str:
    with open(os.path.join(FOLDER, name), encoding="utf-8") as file:
        return file.read()


FIRST, COUNT, NODES, BEGIN, SECONDS, LASTED = map(int, read("history").split())
"""COUNT runs end evenly in SECONDS seconds from BEGIN on; each lasted LASTED seconds."""


def end_of(place: int) -> int:
    return BEGIN + place * SECONDS // COUNT


def place_at(moment: int) -> int:
    """How many runs ended before a moment."""
    return min(max(-((BEGIN - moment) * COUNT // SECONDS), 0), COUNT)


def window(argv: "list[str]") -> "tuple[int, int]":
    since, until = (int(argv[argv.index(option) + 1].partition("uts")[2]) for option in ("-S", "-E"))
    return since, until


def wanted(argv: "list[str]") -> "list[int]":
    """The places of the runs that are asked for, in a window or by their jobs."""
    since, until = window(argv)
    if "-j" not in argv:
        return [place for place in range(place_at(since), min(place_at(until) + 1, COUNT)) if end_of(place) <= until]
    places = [int(word) - FIRST for word in argv[argv.index("-j") + 1].split(",")]
    return [place for place in places if 0 <= place < COUNT and since <= end_of(place) <= until]


def print_ends(places: "list[int]") -> None:
    for begin in range(0, len(places), CHUNK):
        sys.stdout.write("".join(map(line_of, places[begin : begin + CHUNK])))


def line_of(place: int) -> str:
    end = end_of(place)
    start = end - LASTED
    return f"{FIRST + place}|COMPLETED|{start - place % 10}|{start}|{end}|1\n"


def print_runs(places: "list[int]") -> None:
    head, template, tail = read("accounted.json").split("@@@")
    sys.stdout.write(head + ",\n".join(fill(template, place) for place in places) + tail)


def fill(template: str, place: int) -> str:
    job_id, end = FIRST + place, end_of(place)
    text = template.replace("@id@", str(job_id)).replace("@node@", f"n{job_id % NODES:05}")
    return text.replace("@start@", str(end - LASTED)).replace("@end@", str(end))


def main(argv: "list[str]") -> None:
    with open(os.path.join(FOLDER, "one-query"), "w", encoding="ascii") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            sys.exit("the stand-in sacct is asked while another query is under way")
        if any(word.startswith("--json") for word in argv):
            print_runs(wanted(argv))
        elif argv[-1] == "--format=JobIDRaw,State,Submit,Start,End,NNodes":
            print_ends(wanted(argv))
        else:
            sys.exit(f"the stand-in does not know: sacct {' '.join(argv)}")


main(sys.argv[2:])
