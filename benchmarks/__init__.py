"""
How fast mailplat is, alone and beside other mail servers on the same machine.

    python -m benchmarks              ours alone, short, one line a figure     (make bench)
    python -m benchmarks.compare      beside its peers, as a Markdown table    (make bench-peers)

Both take names of rows.  Read it from the bottom:

    process, corpus, player, clients    /proc, sample mail, load, and plain clients
    servers/                            what is measured: ours and its peers, each started here
    work/                               what is done to them; every file is one kind of work
    table                               the rows: work, peers, and what we aim at
    running, report, machine            taking turns, and telling the result

Everything talks over loopback, to servers that are started here with a configuration and a
data directory of their own, and every run is bounded in count and time.  Needed beside
Python: a C compiler for the load generator, and root for Postfix and Dovecot.
"""
