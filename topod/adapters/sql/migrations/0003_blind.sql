-- Why the health of the GPUs is unknown; NULL when it is known.
ALTER TABLE host ADD COLUMN blind TEXT;
