-- As an earlier topod wrote it.
BEGIN TRANSACTION;
CREATE TABLE events (
    seq  INTEGER PRIMARY KEY AUTOINCREMENT,
    at   REAL    NOT NULL,
    name TEXT    NOT NULL,
    job  INTEGER,
    text TEXT    NOT NULL,
    data TEXT    NOT NULL
) STRICT;
INSERT INTO "events" VALUES(1,10.0,'job.preempted',7,'preempted','{"by":9}');
CREATE TABLE facts (
    name  TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT;
INSERT INTO "facts" VALUES('instance','02f621056c7f');
CREATE TABLE host (
    id         INTEGER PRIMARY KEY CHECK (id = 1),
    generation INTEGER NOT NULL,
    next_job   INTEGER NOT NULL,
    drain      TEXT,
    marks      TEXT    NOT NULL
, foreign_cpus TEXT NOT NULL DEFAULT '{}', blind TEXT) STRICT;
INSERT INTO "host" VALUES(1,1,8,'weekend','{"GPU-a":[{"kind":"quarantined","reason":"stuck","since":3.0,"job":7,"causes":[],"accepted":false}]}','{}',NULL);
CREATE TABLE jobs (
    id           INTEGER PRIMARY KEY,
    state        TEXT    NOT NULL,
    open         INTEGER NOT NULL CHECK (open IN (0, 1)), -- 0: put to rest, only history reads it
    user         TEXT    NOT NULL,
    submitted_at REAL    NOT NULL,
    ended_at     REAL,
    body         TEXT    NOT NULL
) STRICT;
INSERT INTO "jobs" VALUES(3,'succeeded',0,'alice',1.5,9.0,'{"id":3,"spec":{"name":"träin ✓","command":["sh","-c","echo ''a\nb''"],"image":null,"user":"alice","env":{"A":"1"},"mounts":[{"source":"/a","target":"/b","read_only":false}],"workdir":null,"container_user":null,"shm_bytes":8589934592,"ulimits":{},"labels":{},"request":{"gpus":2,"affinity":"nvlink","policy":"guaranteed","cpus":"auto","cpu_affinity":"numa","priority":500},"memory_bytes":null,"preemptible":true,"grace_seconds":30.0,"min_runtime_seconds":0.0,"on_preempt":"requeue","max_runtime_seconds":null,"restart":"never","max_restarts":3,"checkpoint":{"command":["save"],"signal":null,"timeout_seconds":30.0},"wait_before_preempt_seconds":0.0,"after":[],"secrets":[]},"state":"succeeded","reason":"","submitted_at":1.5,"attempt":3,"starts":0,"preemptions":0,"failures":0,"image_ready":false,"not_before":0.0,"restart_first":false,"allocation":null,"handle":"c0ffee","stage":null,"stage_since":0.0,"victims":[2,5],"plan":{"gpus":[0,1],"cost":{"victims":[[100,1]]}},"stop":null,"started_at":null,"checkpoint_at":null,"ended_at":9.0,"exit_code":null,"gpu_seconds":0.0,"ready_at":null,"after":[],"array":null,"pinned":null,"pinned_reserved":false,"frozen":null,"moves":0,"placed_at":null,"pull_failures":0,"leftovers":[]}');
INSERT INTO "jobs" VALUES(7,'stopping',1,'alice',1.5,NULL,'{"id":7,"spec":{"name":"träin ✓","command":["sh","-c","echo ''a\nb''"],"image":null,"user":"alice","env":{"A":"1"},"mounts":[{"source":"/a","target":"/b","read_only":false}],"workdir":null,"container_user":null,"shm_bytes":8589934592,"ulimits":{},"labels":{},"request":{"gpus":2,"affinity":"nvlink","policy":"guaranteed","cpus":"auto","cpu_affinity":"numa","priority":500},"memory_bytes":null,"preemptible":true,"grace_seconds":30.0,"min_runtime_seconds":0.0,"on_preempt":"requeue","max_runtime_seconds":null,"restart":"never","max_restarts":3,"checkpoint":{"command":["save"],"signal":null,"timeout_seconds":30.0},"wait_before_preempt_seconds":0.0,"after":[],"secrets":[]},"state":"stopping","reason":"","submitted_at":1.5,"attempt":3,"starts":0,"preemptions":0,"failures":0,"image_ready":false,"not_before":0.0,"restart_first":false,"allocation":{"gpus":["GPU-a","GPU-b"],"gpu_indices":[0,1],"cpus":"0-3,8","memory_nodes":[]},"handle":"c0ffee","stage":null,"stage_since":0.0,"victims":[2,5],"plan":{"gpus":[0,1],"cost":{"victims":[[100,1]]}},"stop":{"cause":"preempt","by":9,"reason":"for job 9","since":2.0,"phase":"term","deadline":32.0},"started_at":null,"checkpoint_at":null,"ended_at":null,"exit_code":null,"gpu_seconds":0.0,"ready_at":null,"after":[],"array":null,"pinned":null,"pinned_reserved":false,"frozen":null,"moves":0,"placed_at":null,"pull_failures":0,"leftovers":[]}');
CREATE TABLE submissions (
    token TEXT    PRIMARY KEY,
    job   INTEGER NOT NULL
) STRICT;
INSERT INTO "submissions" VALUES('t',7);
CREATE INDEX jobs_open ON jobs (open) WHERE open = 1;
CREATE INDEX jobs_ended ON jobs (ended_at, id) WHERE ended_at IS NOT NULL;
CREATE INDEX jobs_user ON jobs (user, ended_at, id) WHERE ended_at IS NOT NULL;
CREATE INDEX events_job ON events (job, seq) WHERE job IS NOT NULL;
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('events',1);
COMMIT;
PRAGMA user_version = 3;
