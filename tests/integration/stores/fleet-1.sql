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
INSERT INTO "events" VALUES(1,10.0,'job.submitted',7,'x','{}');
CREATE TABLE facts (
    name  TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT;
INSERT INTO "facts" VALUES('instance','4d9fff6a2303');
CREATE TABLE fleet (
    id         INTEGER PRIMARY KEY CHECK (id = 1),
    generation INTEGER NOT NULL,
    next_job   INTEGER NOT NULL,
    next_fence INTEGER NOT NULL,
    epoch      INTEGER NOT NULL
) STRICT;
INSERT INTO "fleet" VALUES(1,1,8,6,0);
CREATE TABLE hosts (
    name TEXT PRIMARY KEY,
    body TEXT NOT NULL
) STRICT;
INSERT INTO "hosts" VALUES('a','{"name":"a","known_since":1.0,"labels":{"rack":"7"},"own_labels":{"rack":"8","zone":"x"},"closed":{"reason":"new disk","since":2.0,"drained":true},"hardware":"dgx1","session":"s1","version":"0.1"}');
CREATE TABLE jobs (
    id           INTEGER PRIMARY KEY,
    user         TEXT    NOT NULL,
    fence        INTEGER NOT NULL,
    submitted_at REAL    NOT NULL,
    ended_at     REAL,
    body         TEXT    NOT NULL
) STRICT;
INSERT INTO "jobs" VALUES(3,'alice',0,1.0,9.0,'{"id":3,"request":{"spec":{"name":"träin ✓","command":["sh","-c","echo ''a\nb''"],"image":null,"user":"alice","env":{"A":"1"},"mounts":[{"source":"/a","target":"/b","read_only":false}],"workdir":null,"container_user":null,"shm_bytes":8589934592,"ulimits":{},"cap_add":[],"devices":[],"network":null,"labels":{},"request":{"gpus":2,"affinity":"nvlink","policy":"guaranteed","cpus":"auto","cpu_affinity":"numa","priority":500},"memory_bytes":null,"preemptible":true,"grace_seconds":30.0,"min_runtime_seconds":0.0,"on_preempt":"requeue","on_host_lost":"keep","max_runtime_seconds":null,"restart":"never","max_restarts":3,"checkpoint":{"command":["save"],"signal":null,"timeout_seconds":30.0},"wait_before_preempt_seconds":0.0,"after":[],"secrets":[]},"hosts":1,"select":[],"gpu_model":""},"state":"succeeded","reason":"","submitted_at":1.0,"fence":0,"members":[],"go":false,"ending":null,"reprioritised":false,"preemptions":0,"starts":0,"failures":0,"gpu_seconds":0.0,"not_before":0.0,"ready_at":null,"target":[],"guard":null,"placed_at":null,"started_at":null,"ended_at":9.0,"exit_code":null}');
INSERT INTO "jobs" VALUES(7,'alice',5,1.5,NULL,'{"id":7,"request":{"spec":{"name":"träin ✓","command":["sh","-c","echo ''a\nb''"],"image":null,"user":"alice","env":{"A":"1"},"mounts":[{"source":"/a","target":"/b","read_only":false}],"workdir":null,"container_user":null,"shm_bytes":8589934592,"ulimits":{},"cap_add":[],"devices":[],"network":null,"labels":{},"request":{"gpus":2,"affinity":"nvlink","policy":"guaranteed","cpus":"auto","cpu_affinity":"numa","priority":500},"memory_bytes":null,"preemptible":true,"grace_seconds":30.0,"min_runtime_seconds":0.0,"on_preempt":"requeue","on_host_lost":"keep","max_runtime_seconds":null,"restart":"never","max_restarts":3,"checkpoint":{"command":["save"],"signal":null,"timeout_seconds":30.0},"wait_before_preempt_seconds":0.0,"after":[],"secrets":[]},"hosts":2,"select":["rack=7"],"gpu_model":"*v100*"},"state":"stopping","reason":"for job 9","submitted_at":1.5,"fence":5,"members":[{"host":"a","rank":1,"place":{"gpus":[0,1],"victims":["2","5"]},"cpus":"0-3,8","since":3.0,"report":{"job":7,"fence":5,"local":3,"state":"running","stage":null,"ready":false,"reason":"","gpus":[0,1],"cpu_list":"","affinity":"","satisfied":true,"attempt":0,"starts":0,"preemptions":0,"started_at":4.0,"ended_at":null,"exit_code":null,"gpu_seconds":0.0},"lost":false},{"host":"b","rank":0,"place":{"gpus":[0,1],"victims":["2","5"]},"cpus":"0-3,8","since":3.0,"report":null,"lost":true}],"go":true,"ending":{"state":"pending","reason":"lost","exit_code":3,"failed":true},"reprioritised":false,"preemptions":2,"starts":0,"failures":0,"gpu_seconds":0.0,"not_before":0.0,"ready_at":null,"target":[{"host":"c","gpus":6,"cpus":"1"}],"guard":{"priority":900,"seconds":60.0},"placed_at":null,"started_at":null,"ended_at":null,"exit_code":null}');
CREATE TABLE submissions (
    token TEXT    PRIMARY KEY,
    job   INTEGER NOT NULL
) STRICT;
INSERT INTO "submissions" VALUES('t',7);
CREATE INDEX jobs_open ON jobs (id) WHERE ended_at IS NULL;
CREATE INDEX jobs_ended ON jobs (ended_at, id) WHERE ended_at IS NOT NULL;
CREATE INDEX jobs_user ON jobs (user, ended_at, id) WHERE ended_at IS NOT NULL;
CREATE INDEX jobs_fence ON jobs (fence);
CREATE INDEX events_job ON events (job, seq) WHERE job IS NOT NULL;
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('events',1);
COMMIT;
PRAGMA user_version = 1;
