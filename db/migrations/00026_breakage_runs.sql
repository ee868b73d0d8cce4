-- +goose Up

-- What is booked in a period after its breakage was adjusted is adjusted for too: the close of a period runs the adjustment again and again until
-- nothing is missing. A run that finds nothing to adjust writes nothing.
ALTER TABLE breakage_adjustments ADD COLUMN run integer NOT NULL DEFAULT 1 CHECK (run > 0); -- of the same cohort, period, policy and estimate
ALTER TABLE breakage_adjustments DROP CONSTRAINT adjusted_once;
ALTER TABLE breakage_adjustments ADD CONSTRAINT adjusted_once PRIMARY KEY (entity, unit, expires_in, period, policy_version, estimate_version, run);

-- +goose Down
ALTER TABLE breakage_adjustments DROP CONSTRAINT adjusted_once;
ALTER TABLE breakage_adjustments ADD CONSTRAINT adjusted_once PRIMARY KEY (entity, unit, expires_in, period, policy_version, estimate_version);
ALTER TABLE breakage_adjustments DROP COLUMN run;
