-- CPUs that something topod did not start uses: {CPU list: who}.
ALTER TABLE host ADD COLUMN foreign_cpus TEXT NOT NULL DEFAULT '{}';
