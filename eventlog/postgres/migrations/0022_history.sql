-- +goose Up
-- Blocks of the history are looked up by the positions of their events, and by failures.
-- Most span few positions; only the others are compared with all positions.
CREATE INDEX tidings_history_narrow ON tidings_history (highest, lowest) WHERE highest - lowest < 10000;
CREATE INDEX tidings_history_wide ON tidings_history (lowest, highest) WHERE highest - lowest >= 10000;
-- Queries order by these expressions, so that each uses its own index, whatever the database
-- expects of the others.
CREATE INDEX tidings_history_failures_of ON tidings_history (endpoint, (id + 0)) WHERE failures > 0;
CREATE INDEX tidings_history_failures ON tidings_history ((id - 0)) WHERE failures > 0;
