"""The tables of `ledger.db`, made to be read by people with any SQLite tool.

A time is kept as `…_at`, seconds since the epoch, because it is compared and subtracted; the
column of the same name ending in `_time` shows it as ISO 8601 text and takes no room. Units are
in the names of the columns; truth is 0 or 1. Comments inside the statements are kept by SQLite
and shown with the table.
"""

from balancerd.adapters.sqlite.database import Form


def _moment(name: str, null: str = "NOT NULL") -> str:
    """Columns of one moment: the number, and the text made of it."""
    text = name.removesuffix("at") + "time"
    return (
        f"{name} REAL {null}, {text} TEXT AS "
        f"(strftime('%Y-%m-%dT%H:%M:%S+00:00', {name}, 'unixepoch')) VIRTUAL"
    )


_TABLES = (
    f"""CREATE TABLE sites ( -- everything one balancerd looks after
        name TEXT PRIMARY KEY,
        {_moment("first_seen_at")}
    ) STRICT""",
    f"""CREATE TABLE hosts ( -- hypervisor machines as last seen
        name TEXT PRIMARY KEY,
        uuid TEXT NOT NULL,
        rack TEXT NOT NULL,
        power TEXT NOT NULL,
        cpu_reference_cores REAL NOT NULL,
        cores INTEGER NOT NULL,
        memory_bytes INTEGER NOT NULL,
        cpu_model TEXT NOT NULL,
        can_sleep INTEGER NOT NULL CHECK (can_sleep IN (0, 1)),
        definition TEXT NOT NULL, -- JSON: all that is known of it, as in a cluster file
        {_moment("first_seen_at")},
        {_moment("changed_at")},
        {_moment("gone_at", "")}, -- no longer part of the site
        {_moment("empty_since_at", "")} -- on, known, and without a running VM since then
    ) STRICT""",
    f"""CREATE TABLE vms ( -- guests as last seen
        name TEXT PRIMARY KEY,
        uuid TEXT NOT NULL,
        state TEXT NOT NULL,
        memory_bytes INTEGER NOT NULL,
        vcpus INTEGER NOT NULL,
        cpu_reference_cores REAL NOT NULL, -- the most it can use
        persistent INTEGER NOT NULL CHECK (persistent IN (0, 1)),
        autostart INTEGER NOT NULL CHECK (autostart IN (0, 1)),
        cpu_model TEXT NOT NULL,
        owner TEXT NOT NULL, -- another management system that says it owns the VM
        tags TEXT NOT NULL, -- JSON: balancerd's own metadata in the VM's definition
        {_moment("first_seen_at")},
        {_moment("changed_at")},
        {_moment("gone_at", "")}
    ) STRICT""",
    f"""CREATE TABLE placements ( -- which VM was on which host, and when
        id INTEGER PRIMARY KEY,
        vm TEXT NOT NULL REFERENCES vms (name),
        host TEXT NOT NULL REFERENCES hosts (name),
        {_moment("from_at")},
        {_moment("until_at", "")} -- empty: still there
    ) STRICT""",
    "CREATE INDEX placements_of_vm ON placements (vm, from_at)",
    "CREATE UNIQUE INDEX placements_now ON placements (vm) WHERE until_at IS NULL",
    f"""CREATE TABLE policies ( -- each text of a policy file that was in force
        id INTEGER PRIMARY KEY,
        name TEXT NOT NULL,
        sha256 TEXT NOT NULL,
        text TEXT NOT NULL,
        {_moment("first_seen_at")},
        {_moment("used_at")}, -- last put in force
        UNIQUE (name, sha256)
    ) STRICT""",
    f"""CREATE TABLE plans ( -- decisions to do something
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        {_moment("at")},
        policy TEXT NOT NULL,
        policy_id INTEGER REFERENCES policies (id),
        objective TEXT NOT NULL,
        state TEXT NOT NULL,
        reason TEXT NOT NULL,
        score_before REAL, -- smaller is better
        score_after REAL,
        moves INTEGER NOT NULL,
        power_actions INTEGER NOT NULL,
        refusal_counts TEXT NOT NULL, -- JSON: candidates not taken, by constraint
        certificate TEXT, -- JSON: what the independent checker found
        tables BLOB NOT NULL -- packed: assessments, hosts before and after
    ) STRICT""",
    "CREATE INDEX plans_by_time ON plans (at)",
    "CREATE INDEX plans_open ON plans (id) WHERE state IN ('proposed', 'running')",
    f"""CREATE TABLE plan_states ( -- how each plan went on
        id INTEGER PRIMARY KEY,
        plan INTEGER NOT NULL REFERENCES plans (id) ON DELETE CASCADE,
        {_moment("at")},
        state TEXT NOT NULL,
        detail TEXT NOT NULL
    ) STRICT""",
    "CREATE INDEX plan_states_of_plan ON plan_states (plan)",
    """CREATE TABLE plan_actions ( -- what each plan means to do, in order
        plan INTEGER NOT NULL REFERENCES plans (id) ON DELETE CASCADE,
        number INTEGER NOT NULL,
        kind TEXT NOT NULL, -- move, sleep or wake
        vm TEXT,
        host TEXT NOT NULL, -- of a move: its source
        target TEXT,
        method TEXT,
        reason TEXT NOT NULL,
        wave INTEGER NOT NULL,
        after TEXT NOT NULL, -- JSON: numbers of the actions that must be done before it
        predicted_begin_seconds REAL, -- after the plan's first move
        predicted_seconds REAL,
        predicted_bytes INTEGER,
        predicted_downtime_ms REAL,
        score_after REAL, -- once this and all earlier moves are done
        parked INTEGER CHECK (parked IN (0, 1)), -- a stop on the way, to break a cycle
        set_number INTEGER, -- moves of one number start all or none; 0: of no set
        basis TEXT, -- JSON: what the predictions rest on
        PRIMARY KEY (plan, number)
    ) STRICT""",
    """CREATE TABLE refusals ( -- why a candidate was not taken: the most telling ones
        id INTEGER PRIMARY KEY,
        plan INTEGER NOT NULL REFERENCES plans (id) ON DELETE CASCADE,
        vm TEXT NOT NULL,
        host TEXT NOT NULL, -- the target refused; empty: the VM may not move at all
        rule TEXT NOT NULL, -- the constraint
        detail TEXT NOT NULL,
        remedy TEXT NOT NULL
    ) STRICT""",
    "CREATE INDEX refusals_of_plan ON refusals (plan)",
    f"""CREATE TABLE snapshots ( -- the cluster that a plan was made of
        plan INTEGER PRIMARY KEY REFERENCES plans (id) ON DELETE CASCADE,
        {_moment("at")},
        figures BLOB NOT NULL, -- packed: all that changes from one snapshot to the next
        definitions BLOB NOT NULL -- zlib, in pieces, of lines of JSON: hosts, VMs, links
    ) STRICT""",
    f"""CREATE TABLE newest_snapshot ( -- the cluster as last observed
        id INTEGER PRIMARY KEY CHECK (id = 1),
        {_moment("at")},
        figures BLOB NOT NULL, -- packed: all that changes from one snapshot to the next
        definitions BLOB NOT NULL -- zlib, in pieces, of lines of JSON: hosts, VMs, links
    ) STRICT""",
    f"""CREATE TABLE intents ( -- every act, written before it was done
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        kind TEXT NOT NULL, -- migrate, wake or sleep
        {_moment("at")},
        vm TEXT NOT NULL,
        uuid TEXT NOT NULL,
        host TEXT NOT NULL, -- of a migration: its source
        target TEXT NOT NULL,
        method TEXT,
        reason TEXT NOT NULL,
        plan INTEGER REFERENCES plans (id) ON DELETE SET NULL,
        action INTEGER, -- its number in the plan
        bandwidth_bytes_per_s INTEGER NOT NULL,
        autostart INTEGER NOT NULL CHECK (autostart IN (0, 1)),
        target_defined INTEGER NOT NULL CHECK (target_defined IN (0, 1)), -- before the move
        hand_over INTEGER NOT NULL CHECK (hand_over IN (0, 1)), -- it arrives paused, and is resumed
        predicted_seconds REAL NOT NULL,
        predicted_bytes INTEGER NOT NULL,
        predicted_downtime_ms REAL NOT NULL,
        basis TEXT NOT NULL -- JSON: the model's own figures, by which factors they may be off
    ) STRICT""",
    "CREATE INDEX intents_of_plan ON intents (plan)",
    "CREATE INDEX intents_of_vm ON intents (vm, at)",
    "CREATE INDEX intents_by_time ON intents (at)",
    "CREATE INDEX intents_to_sleep ON intents (host) WHERE kind = 'sleep'",
    f"""CREATE TABLE conclusions ( -- how each intent ended, as both hosts told it
        id INTEGER PRIMARY KEY, -- in the order they were written
        intent INTEGER NOT NULL UNIQUE REFERENCES intents (id) ON DELETE CASCADE,
        {_moment("at")},
        outcome TEXT NOT NULL,
        detail TEXT NOT NULL,
        bytes INTEGER,
        iterations INTEGER,
        downtime_ms REAL,
        seconds REAL,
        error TEXT NOT NULL,
        error_code INTEGER NOT NULL,
        error_domain INTEGER NOT NULL,
        adopted INTEGER NOT NULL CHECK (adopted IN (0, 1)), -- another process saw the start
        against TEXT NOT NULL, -- what an objection holds for: move, source, target, pair
        event INTEGER NOT NULL -- its line of the audit
    ) STRICT""",
    "CREATE INDEX conclusions_by_time ON conclusions (at)",
    "CREATE INDEX conclusions_by_event ON conclusions (event)",
    f"""CREATE TABLE progress ( -- how far each migration was when last heard of
        intent INTEGER PRIMARY KEY REFERENCES intents (id) ON DELETE CASCADE,
        {_moment("at")},
        total_bytes INTEGER,
        processed_bytes INTEGER,
        remaining_bytes INTEGER,
        iteration INTEGER,
        elapsed_seconds REAL,
        dirty_bytes_per_s REAL,
        throttle_percent INTEGER
    ) STRICT""",
    f"""CREATE TABLE power_events ( -- changes of hosts' power, as seen
        id INTEGER PRIMARY KEY,
        {_moment("at")},
        host TEXT NOT NULL,
        power TEXT NOT NULL
    ) STRICT""",
    "CREATE INDEX power_events_of_host ON power_events (host, at)",
    f"""CREATE TABLE requests ( -- what operators asked of the daemon
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        {_moment("at")},
        verb TEXT NOT NULL,
        subject TEXT NOT NULL,
        by TEXT NOT NULL,
        arguments TEXT NOT NULL, -- JSON
        {_moment("answered_at", "")},
        accepted INTEGER CHECK (accepted IN (0, 1)),
        answer TEXT
    ) STRICT""",
    "CREATE INDEX requests_open ON requests (id) WHERE answered_at IS NULL",
    f"""CREATE TABLE pauses ( -- the kill switch: while one stands, no intent can be written
        id INTEGER PRIMARY KEY,
        {_moment("at")},
        by TEXT NOT NULL,
        reason TEXT NOT NULL,
        {_moment("until_at", "")}, -- empty: until somebody resumes
        {_moment("ended_at", "")},
        ended_by TEXT
    ) STRICT""",
    "CREATE INDEX pauses_open ON pauses (id) WHERE ended_at IS NULL",
    f"""CREATE TABLE drains ( -- hosts being emptied for maintenance
        id INTEGER PRIMARY KEY,
        host TEXT NOT NULL,
        {_moment("from_at")},
        {_moment("until_at", "")} -- empty: still drained
    ) STRICT""",
    "CREATE UNIQUE INDEX drains_now ON drains (host) WHERE until_at IS NULL",
    """CREATE TABLE clocks ( -- what the times above are counted by, in this run of the machine
        boot TEXT PRIMARY KEY,
        seconds_ahead REAL NOT NULL -- of the machine's monotonic clock
    ) STRICT""",
    f"""CREATE TABLE cycles ( -- one line for each look at the site; the newest is the status
        id INTEGER PRIMARY KEY,
        {_moment("at")},
        seconds REAL NOT NULL,
        sentence TEXT NOT NULL,
        mode TEXT NOT NULL,
        objective TEXT NOT NULL,
        window TEXT NOT NULL,
        hosts_on INTEGER NOT NULL,
        hosts_asleep INTEGER NOT NULL,
        hosts_unknown INTEGER NOT NULL,
        vms INTEGER NOT NULL,
        overloaded INTEGER NOT NULL,
        frozen TEXT NOT NULL, -- why nothing is done at all
        plan INTEGER REFERENCES plans (id) ON DELETE SET NULL,
        plan_seconds REAL -- what planning took; empty: nothing was planned
    ) STRICT""",
    "CREATE INDEX cycles_by_time ON cycles (at)",
    "CREATE INDEX cycles_of_plan ON cycles (plan)",
    f"""CREATE TABLE events ( -- the audit: lines are only added, each sealed with those before it
        id INTEGER PRIMARY KEY,
        {_moment("at")},
        kind TEXT NOT NULL,
        subject TEXT NOT NULL,
        detail TEXT NOT NULL,
        hash TEXT NOT NULL -- SHA-256 of the hash before it and of this line
    ) STRICT""",
    "CREATE INDEX events_by_time ON events (at)",
    """CREATE TABLE event_head ( -- the newest line of the audit: its end cannot be cut off unseen
        one INTEGER PRIMARY KEY CHECK (one = 1),
        id INTEGER NOT NULL,
        hash TEXT NOT NULL
    ) STRICT""",
    f"""CREATE TABLE event_anchors ( -- how far old lines of the audit were dropped
        up_to INTEGER PRIMARY KEY, -- the id of the newest event dropped
        hash TEXT NOT NULL, -- its hash: the chain goes on from here
        {_moment("at")}
    ) STRICT""",
)

_TRIGGERS = (
    """CREATE TRIGGER events_are_added_at_the_end BEFORE INSERT ON events
        WHEN NEW.id <= (SELECT max(id) FROM events)
        BEGIN SELECT RAISE(ABORT, 'an event can only be added at the end'); END""",
    """CREATE TRIGGER events_have_a_head AFTER INSERT ON events
        BEGIN INSERT OR REPLACE INTO event_head VALUES (1, NEW.id, NEW.hash); END""",
    """CREATE TRIGGER events_are_not_changed BEFORE UPDATE ON events
        BEGIN SELECT RAISE(ABORT, 'events are never changed'); END""",
    """CREATE TRIGGER events_are_not_deleted BEFORE DELETE ON events
        WHEN OLD.id > coalesce((SELECT max(up_to) FROM event_anchors), 0)
        BEGIN SELECT RAISE(ABORT, 'events are never deleted before their time'); END""",
)

_VIEWS = (
    """CREATE VIEW migrations AS -- moves begun or objected to, with prediction and outcome
        SELECT intents.id, intents.time AS begun_time, conclusions.time AS ended_time,
            vm, host AS source, target, method, coalesce(outcome, 'under way') AS outcome,
            conclusions.bytes, iterations, downtime_ms, seconds,
            predicted_bytes, predicted_downtime_ms, predicted_seconds,
            predicted_seconds / json_extract(basis, '$.seconds_factor')
                AS predicted_least_seconds,
            predicted_seconds * json_extract(basis, '$.seconds_factor')
                AS predicted_most_seconds,
            CAST(predicted_bytes / json_extract(basis, '$.bytes_factor') AS INTEGER)
                AS predicted_least_bytes,
            CAST(predicted_bytes * json_extract(basis, '$.bytes_factor') AS INTEGER)
                AS predicted_most_bytes,
            predicted_downtime_ms / json_extract(basis, '$.downtime_factor')
                AS predicted_least_downtime_ms,
            predicted_downtime_ms * json_extract(basis, '$.downtime_factor')
                AS predicted_most_downtime_ms,
            json_extract(basis, '$.link') AS link,
            bandwidth_bytes_per_s, intents.plan, intents.action, reason, detail, error, adopted,
            intents.at AS begun_at, conclusions.at AS ended_at
        FROM intents LEFT JOIN conclusions ON conclusions.intent = intents.id
        WHERE kind = 'migrate'""",
    """CREATE VIEW open_intents AS -- begun and not concluded
        SELECT intents.*, progress.time AS progress_time, processed_bytes,
            remaining_bytes, iteration
        FROM intents LEFT JOIN progress ON progress.intent = intents.id
        WHERE NOT EXISTS (SELECT 1 FROM conclusions WHERE conclusions.intent = intents.id)""",
    """CREATE VIEW moves_by_vm AS -- who moves most
        SELECT vm, count(*) AS migrations, sum(outcome = 'done') AS done,
            sum(outcome = 'failed') AS failed, sum(downtime_ms) AS downtime_ms,
            sum(bytes) AS bytes, max(begun_time) AS last_begun_time
        FROM migrations WHERE outcome <> 'objected' GROUP BY vm ORDER BY migrations DESC, vm""",
    """CREATE VIEW where_vms_are AS -- the host of each VM
        SELECT vm, host, from_time FROM placements WHERE until_at IS NULL ORDER BY vm""",
    """CREATE VIEW hosts_by_power AS -- when each host last went on or off
        SELECT host, power, max(at) AS at, max(time) AS time FROM power_events
        GROUP BY host, power""",
)

_CHANGES = {"001 tables, triggers and views": (*_TABLES, *_TRIGGERS, *_VIEWS)}
LEDGER = Form("ledger", 0x42414C4C, "balancerd ledger", _CHANGES)  # "BALL"
