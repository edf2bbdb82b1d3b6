-- The state of one host. Job bodies are JSON; the columns beside them are what is searched.

CREATE TABLE jobs (
    id           INTEGER PRIMARY KEY,
    state        TEXT    NOT NULL,
    open         INTEGER NOT NULL CHECK (open IN (0, 1)), -- 0: put to rest, only history reads it
    user         TEXT    NOT NULL,
    submitted_at REAL    NOT NULL,
    ended_at     REAL,
    body         TEXT    NOT NULL
) STRICT;
CREATE INDEX jobs_open ON jobs (open) WHERE open = 1;
CREATE INDEX jobs_ended ON jobs (ended_at, id) WHERE ended_at IS NOT NULL;
CREATE INDEX jobs_user ON jobs (user, ended_at, id) WHERE ended_at IS NOT NULL;

-- One row: everything of the host that is not a job.
CREATE TABLE host (
    id         INTEGER PRIMARY KEY CHECK (id = 1),
    generation INTEGER NOT NULL,
    next_job   INTEGER NOT NULL,
    drain      TEXT,
    marks      TEXT    NOT NULL
) STRICT;
INSERT INTO host (id, generation, next_job, drain, marks) VALUES (1, 0, 1, NULL, '{}');

-- AUTOINCREMENT: a sequence number is never reused, also when old events were deleted.
CREATE TABLE events (
    seq  INTEGER PRIMARY KEY AUTOINCREMENT,
    at   REAL    NOT NULL,
    name TEXT    NOT NULL,
    job  INTEGER,
    text TEXT    NOT NULL,
    data TEXT    NOT NULL
) STRICT;
CREATE INDEX events_job ON events (job, seq) WHERE job IS NOT NULL;

-- A submit that is repeated with the same token answers with the first one's job.
CREATE TABLE submissions (
    token TEXT    PRIMARY KEY,
    job   INTEGER NOT NULL
) STRICT;

-- What this state folder belongs to: instance, host, runtime.
CREATE TABLE facts (
    name  TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT;
