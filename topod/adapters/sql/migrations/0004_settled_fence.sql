-- The highest fence of the coordinator's assignments that it has settled: none up to it is ever taken again.
ALTER TABLE host ADD COLUMN settled_fence INTEGER NOT NULL DEFAULT 0;
