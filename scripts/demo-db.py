#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Builds the database of `make demo` out of what this machine knows of itself.

    demo-db.py FILE

Tables: the installed packages; the files that they and others put below /usr
and /etc; the packages that could be installed, as apt knows them; and, where
that does not make TARGET bytes, the text of documentation and headers. All of it
is what everybody on this machine may read.
"""
import itertools
import os
import re
import sqlite3
import stat
import subprocess
import sys
import time

TABLES = ("package", "file", "available", "text")
LEAST = 64 << 20
TARGET = 80 << 20
MOST_FILES, MOST_AVAILABLE = 400_000, 100_000
TEXTS = ("/usr/share/doc", "/usr/include", "/usr/share/perl", "/usr/lib/python3",
         "/usr/share", "/usr/lib")
INFO = "/var/lib/dpkg/info"

SCHEMA = """
CREATE TABLE package(
    name TEXT, architecture TEXT, version TEXT, section TEXT, installed_kib INTEGER,
    maintainer TEXT, homepage TEXT, depends TEXT, summary TEXT, note TEXT,
    PRIMARY KEY(name, architecture));
CREATE TABLE file(
    id INTEGER PRIMARY KEY, path TEXT NOT NULL, package TEXT, size INTEGER, mode INTEGER,
    owner INTEGER, modified INTEGER, md5 TEXT);
CREATE TABLE available(package TEXT, version TEXT, record TEXT);
CREATE TABLE text(file INTEGER PRIMARY KEY REFERENCES file, body TEXT);
"""


def clean(path):
    """Names are bytes; the few that are not UTF-8 shall not stop us."""
    return os.fsencode(path).decode("utf-8", "replace")


def packages():
    fields = ("Package", "Architecture", "Version", "Section", "Installed-Size", "Maintainer",
              "Homepage", "Depends", "binary:Summary")
    form = "\x1f".join("${%s}" % f for f in fields) + "\x1e"
    out = subprocess.run(["dpkg-query", "-W", "-f", form], check=True, stdout=subprocess.PIPE).stdout
    for record in out.decode("utf-8", "replace").split("\x1e"):
        row = record.split("\x1f")
        if len(row) == len(fields):
            yield (*row, "")


def package_lists():
    """path -> package and path -> MD5 sum, as dpkg has them."""
    owners, sums = {}, {}
    for name in sorted(os.listdir(INFO)):
        base, kind = os.path.splitext(name)
        package = base.split(":")[0]
        if kind == ".list":
            with open(os.path.join(INFO, name), errors="surrogateescape") as lines:
                for line in lines:
                    owners[line.rstrip("\n")] = package
        elif kind == ".md5sums":
            with open(os.path.join(INFO, name), errors="surrogateescape") as lines:
                for line in lines:
                    md5, _, path = line.rstrip("\n").partition("  ")
                    sums["/" + path] = md5
    return owners, sums


def files():
    owners, sums = package_lists()
    seen = set()

    def row(path):
        seen.add(path)
        try:
            st = os.lstat(path)
        except OSError:
            return None  # listed, but not installed (documentation left out, say)
        if stat.S_ISDIR(st.st_mode):
            return None
        return (clean(path), owners.get(path), st.st_size, st.st_mode, st.st_uid,
                int(st.st_mtime), sums.get(path))

    for path in sorted(owners):
        if found := row(path):
            yield found
    # What dpkg does not know of, as far as others put it where dpkg does.
    for top in ("/etc", "/usr"):
        for directory, below, names in os.walk(top):
            below.sort()
            for name in sorted(names):
                path = os.path.join(directory, name)
                if path not in seen and len(seen) < MOST_FILES:
                    if found := row(path):
                        yield found


def available():
    """What apt could install; nothing where it has no lists."""
    apt = subprocess.run(["apt-cache", "dumpavail"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    field = re.compile(r"^(Package|Version): (.*)$", re.MULTILINE)
    for record in apt.stdout.decode("utf-8", "replace").split("\n\n"):
        if record.strip():
            known = dict(field.findall(record))
            yield known.get("Package"), known.get("Version"), record


def texts(db):
    """(id, text) of what people can read, most telling directories first."""
    taken = set()
    for top in TEXTS:
        rows = db.execute(
            "SELECT id, path FROM file WHERE path >= ? AND path < ? AND size BETWEEN 1 AND 1000000"
            " AND mode & 61440 = 32768 AND mode & 4 ORDER BY id", (top + "/", top + "0")).fetchall()
        for number, path in rows:
            if number in taken:
                continue
            try:
                with open(path, "rb") as file:
                    body = file.read()
                text = body.decode("utf-8")
            except (OSError, UnicodeDecodeError):
                continue
            if "\0" in text:
                continue
            taken.add(number)
            yield number, text


def build(path):
    db = sqlite3.connect(path)
    db.executescript("PRAGMA page_size=4096; PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF;" + SCHEMA)
    db.executemany("INSERT OR IGNORE INTO package VALUES(?,?,?,?,?,?,?,?,?,?)", packages())
    db.executemany("INSERT INTO file(path,package,size,mode,owner,modified,md5)"
                   " VALUES(?,?,?,?,?,?,?)", files())
    db.execute("CREATE INDEX file_path ON file(path)")
    db.executemany("INSERT INTO available VALUES(?,?,?)", itertools.islice(available(), MOST_AVAILABLE))
    db.execute("CREATE INDEX available_package ON available(package)")
    db.commit()

    def size():
        return db.execute("SELECT page_count * page_size FROM pragma_page_count, pragma_page_size").fetchone()[0]

    batch = []
    for item in texts(db):
        if size() >= TARGET:
            break
        batch.append(item)
        if len(batch) >= 200:
            db.executemany("INSERT INTO text VALUES(?,?)", batch)
            batch.clear()
    db.executemany("INSERT INTO text VALUES(?,?)", batch)
    # A region never grows: some free pages, for rows that need more room later.
    db.execute("CREATE TABLE spare(x)")
    db.execute("INSERT INTO spare VALUES(zeroblob(262144))")
    db.execute("DROP TABLE spare")
    db.execute("ANALYZE")
    db.commit()
    count = {t: db.execute(f"SELECT count(*) FROM {t}").fetchone()[0] for t in TABLES}
    total = size()
    db.close()
    if total < LEAST:
        sys.exit(f"demo-db.py: only {total >> 20} MiB to be found on this machine, {LEAST >> 20} are needed")
    return total, count


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__.strip())
    start = time.monotonic()
    path = sys.argv[1]
    # Renamed when it is complete.
    new = path + ".new"
    if os.path.exists(new):
        os.unlink(new)
    total, count = build(new)
    os.rename(new, path)
    rows = ", ".join(f"{count[t]} {t}" for t in TABLES)
    print(f"{path}: {total / (1 << 20):.1f} MiB; rows: {rows} ({time.monotonic() - start:.1f} s)")


if __name__ == "__main__":
    main()
