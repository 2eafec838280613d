#!/usr/bin/env python3
"""Four processes write one SQLite database, with the journal mode given (wal or delete). Every row must be there
in the end, each writer's in its own order, and the database must call itself whole.

usage: sqlite.py FILE MODE ROWS"""

import os
import sqlite3
import sys

WRITERS = 4


def connect(path: str) -> sqlite3.Connection:
    return sqlite3.connect(path, timeout=120, isolation_level=None)


def write(path: str, writer: int, rows: int) -> None:
    database = connect(path)
    for row in range(rows):
        database.execute("BEGIN IMMEDIATE")
        (last,) = database.execute("SELECT coalesce(max(row), -1) FROM rows WHERE writer = ?", (writer,)).fetchone()
        if last != row - 1:
            raise SystemExit(f"writer {writer}: its last row is {last}, expected {row - 1}")
        database.execute("INSERT INTO rows VALUES (?, ?, ?)", (writer, row, os.urandom(300)))
        database.execute("COMMIT")
    database.close()


def main() -> None:
    path, mode, rows = sys.argv[1], sys.argv[2], int(sys.argv[3])
    database = connect(path)
    (got,) = database.execute(f"PRAGMA journal_mode = {mode}").fetchone()
    if got != mode:
        raise SystemExit(f"asked for journal mode {mode}, got {got}")
    database.execute("CREATE TABLE rows (writer INTEGER, row INTEGER, bytes BLOB, PRIMARY KEY (writer, row))")
    database.close()
    children = []
    for writer in range(WRITERS):
        pid = os.fork()
        if pid == 0:
            write(path, writer, rows)
            os._exit(0)
        children.append(pid)
    codes = [os.waitpid(pid, 0)[1] for pid in children]
    if any(codes):
        raise SystemExit(f"writers ended with {codes}")
    database = connect(path)
    counts = database.execute("SELECT writer, count(*), max(row) FROM rows GROUP BY writer ORDER BY writer").fetchall()
    wanted = [(writer, rows, rows - 1) for writer in range(WRITERS)]
    if counts != wanted:
        raise SystemExit(f"rows {counts}, expected {wanted}")
    (whole,) = database.execute("PRAGMA integrity_check").fetchone()
    if whole != "ok":
        raise SystemExit(f"integrity_check: {whole}")


main()
