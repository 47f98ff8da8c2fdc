#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""report.py DIRECTORY CONDITIONS LINK... : what `make bench` says.

Reads DIRECTORY/vm/out/LINK.tsv (rmem-bench), writes bench.tsv, bench.txt and a PNG
for each case to DIRECTORY, and prints bench.txt.
"""
import csv
import pathlib
import subprocess
import sys

PAGE = 4096
# case -> what a figure is, from ns a page
RATES = {
    "sequential": "cold sequential read, MB/s",
    "random-4": "random pages, 4 threads, MB/s",
    "random-64": "random pages, 64 threads, MB/s",
    "overwrite": "whole pages overwritten until durable, cold, MB/s",
    "rewrite": "whole pages overwritten until durable, read before, MB/s",
    "transport-bulk": "transports: cold sequential read, MB/s",
}
COSTS = {
    "resident": "a page that is there and not mapped, ns",
    "warm": "a page that is there and mapped, ns",
    "write": "first store to a clean page, ns",
}
CPU = {"transport-cpu": "transports: rmemd and rmem-server for a cold sequential read, CPU s/GiB"}
LATENCIES = {
    "random": "one random page, ms: median / p99",
    "transport-page": "transports: one random page, ms: median / p99",
}


def three_digits(value):
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def figure(row):
    """What the table says of a row of rmem-bench."""
    ns = float(row["median_ns"])
    if row["case"] in RATES:
        return three_digits(PAGE / ns * 1e3)
    if row["case"] in COSTS:
        return three_digits(ns)
    if row["case"] in CPU:
        return three_digits((1 << 30) / PAGE * ns / 1e9)
    return " / ".join(three_digits(float(row[q]) / 1e6) for q in ("p50_ns", "p99_ns"))


def table(title, links, peers, figures):
    width = max(map(len, peers))
    columns = [max([len(link)] + [len(figures.get((peer, link), "-")) for peer in peers])
               for link in links]
    yield title
    yield "  ".join([" " * width] + [link.rjust(n) for link, n in zip(links, columns)])
    for peer in peers:
        row = [figures.get((peer, link), "-").rjust(n) for link, n in zip(links, columns)]
        yield "  ".join([peer.ljust(width)] + row)
    yield ""


def plot(path, title, links, peers, values):
    """A group of bars for each link; higher is better, or lower where it says ns or ms."""
    data = "\n".join("\t".join([link] + [str(values.get((peer, link), "?")) for peer in peers])
                     for link in links)
    columns = ", ".join(f"$data using {i + 2}:xtic(1) title '{peer}'" for i, peer in enumerate(peers))
    script = f"""
set terminal pngcairo size 1200,600 noenhanced
set output '{path}'
set datafile missing '?'
set title '{title}'
set style data histogram
set style fill solid 0.8
set logscale y
set grid ytics
set key outside right
set xtics rotate by -20
$data << END
{data}
END
plot {columns}
"""
    subprocess.run(["gnuplot"], input=script, text=True, check=True)


def main():
    directory, conditions, links = pathlib.Path(sys.argv[1]), sys.argv[2], sys.argv[3:]
    rows = []
    for link in links:
        path = directory / "vm" / "out" / f"{link}.tsv"
        if not path.exists():
            continue  # only for cases that were not wanted
        with open(path, encoding="utf-8") as file:
            rows += [{"link": link, **row} for row in csv.DictReader(file, delimiter="\t")]
    with open(directory / "bench.tsv", "w", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0].keys(), delimiter="\t", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    lines = [f"rmem and its peers, {conditions}", ""]
    for case in dict.fromkeys(row["case"] for row in rows):
        mine = [row for row in rows if row["case"] == case]
        peers = list(dict.fromkeys(row["peer"] for row in mine))
        over = [link for link in links if any(row["link"] == link for row in mine)]
        title = {**RATES, **COSTS, **CPU, **LATENCIES}[case]
        if case.startswith("transport-"):
            title += f", {mine[0]['pages']} pages"
        lines += table(title, over, peers, {(r["peer"], r["link"]): figure(r) for r in mine})
        values = {(r["peer"], r["link"]): figure(r).split(" / ")[-1] for r in mine}
        plot(directory / f"{case}.png", title.replace("median / ", ""), over, peers, values)
    text = "\n".join(lines)
    (directory / "bench.txt").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
