-- The state of a fleet. Bodies are JSON; the columns beside them are what is searched.

CREATE TABLE jobs (
    id           INTEGER PRIMARY KEY,
    user         TEXT    NOT NULL,
    fence        INTEGER NOT NULL,
    submitted_at REAL    NOT NULL,
    ended_at     REAL,
    body         TEXT    NOT NULL
) STRICT;
CREATE INDEX jobs_open ON jobs (id) WHERE ended_at IS NULL;
CREATE INDEX jobs_ended ON jobs (ended_at, id) WHERE ended_at IS NOT NULL;
CREATE INDEX jobs_user ON jobs (user, ended_at, id) WHERE ended_at IS NOT NULL;
CREATE INDEX jobs_fence ON jobs (fence);

CREATE TABLE hosts (
    name TEXT PRIMARY KEY,
    body TEXT NOT NULL
) STRICT;

-- One row: the numbers that are never handed out twice.
CREATE TABLE fleet (
    id         INTEGER PRIMARY KEY CHECK (id = 1),
    generation INTEGER NOT NULL,
    next_job   INTEGER NOT NULL,
    next_fence INTEGER NOT NULL,
    epoch      INTEGER NOT NULL
) STRICT;
INSERT INTO fleet (id, generation, next_job, next_fence, epoch) VALUES (1, 0, 1, 1, 0);

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

-- What this state folder belongs to.
CREATE TABLE facts (
    name  TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT;
