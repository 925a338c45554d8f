"""The tables of `samples.db`: readings in the order of time, and what they were folded into.

A reading is kept under its tick, so that a tick is written at one place of the file, and so that
old ticks are dropped from one place. A series of one subject is found through the list of ticks.
There are no foreign keys: their check would double the time of a tick.
"""

from balancerd.adapters.sqlite.database import Form

_SPAN = """CREATE TABLE {name} ( -- {what}
        from_at INTEGER NOT NULL, -- seconds since the epoch
        subject INTEGER NOT NULL,
        readings INTEGER NOT NULL, -- how many
        cpu_reference_cores REAL NOT NULL, -- mean
        cpu_max_reference_cores REAL NOT NULL,
        memory_bytes INTEGER NOT NULL, -- mean
        memory_max_bytes INTEGER NOT NULL,
        steal_max REAL NOT NULL, -- share of the time that runnable vCPUs had to wait
        network_bytes_per_s REAL, -- mean
        block_bytes_per_s REAL, -- mean
        PRIMARY KEY (from_at, subject)
    ) STRICT, WITHOUT ROWID"""

_STATEMENTS = (
    """CREATE TABLE subjects ( -- what was read
        id INTEGER PRIMARY KEY,
        kind TEXT NOT NULL CHECK (kind IN ('host', 'vm')),
        name TEXT NOT NULL,
        UNIQUE (kind, name)
    ) STRICT""",
    """CREATE TABLE ticks ( -- when everything was read
        id INTEGER PRIMARY KEY,
        at REAL NOT NULL UNIQUE,
        time TEXT AS (strftime('%Y-%m-%dT%H:%M:%S+00:00', at, 'unixepoch')) VIRTUAL
    ) STRICT""",
    """CREATE TABLE readings ( -- one host or VM at one tick
        tick INTEGER NOT NULL,
        subject INTEGER NOT NULL,
        cpu_reference_cores REAL NOT NULL,
        memory_bytes INTEGER NOT NULL,
        steal REAL NOT NULL, -- share of the time that runnable vCPUs had to wait
        network_bytes_per_s REAL,
        block_bytes_per_s REAL,
        PRIMARY KEY (tick, subject)
    ) STRICT, WITHOUT ROWID""",
    _SPAN.format(name="five_minutes", what="readings that were dropped, 5 minutes in one row"),
    _SPAN.format(name="hours", what="all readings, an hour in one row"),
    """CREATE TABLE folded ( -- readings before this time are in hours
        id INTEGER PRIMARY KEY CHECK (id = 1),
        until_at INTEGER NOT NULL
    ) STRICT""",
    """CREATE VIEW samples AS -- readings with names and times
        SELECT time, kind, name, cpu_reference_cores, memory_bytes, steal,
            network_bytes_per_s, block_bytes_per_s
        FROM readings JOIN ticks ON ticks.id = tick JOIN subjects ON subjects.id = subject""",
    """CREATE VIEW samples_by_hour AS -- hours with names and times
        SELECT strftime('%Y-%m-%dT%H:%M:%S+00:00', from_at, 'unixepoch') AS from_time, kind, name,
            readings, cpu_reference_cores, cpu_max_reference_cores, memory_bytes,
            memory_max_bytes, steal_max, network_bytes_per_s, block_bytes_per_s
        FROM hours JOIN subjects ON subjects.id = subject""",
)

_CHANGES = {"001 tables and views": _STATEMENTS}
SAMPLES = Form("samples file", 0x42414C53, "balancerd samples", _CHANGES)  # "BALS"
