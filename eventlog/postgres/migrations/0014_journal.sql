-- +goose Up
-- Who paused an endpoint, why, and when the pause ends automatically; 0 if it does not.
ALTER TABLE tidings_controls
	ADD COLUMN actor text NOT NULL DEFAULT '',
	ADD COLUMN comment text NOT NULL DEFAULT '',
	ADD COLUMN until_at bigint NOT NULL DEFAULT 0;

-- What operators did.
CREATE TABLE tidings_actions (
	id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	at bigint NOT NULL,
	actor text NOT NULL,
	action text NOT NULL,
	endpoint text NOT NULL,
	subject text NOT NULL,
	comment text NOT NULL
);
CREATE INDEX tidings_actions_endpoint ON tidings_actions (endpoint, id);

-- Changes of an endpoint's state.
CREATE TABLE tidings_states (
	endpoint text NOT NULL,
	part bigint NOT NULL,
	at bigint NOT NULL,
	state text NOT NULL,
	reason text NOT NULL,
	detail text NOT NULL,
	actor text NOT NULL,
	comment text NOT NULL,
	PRIMARY KEY (endpoint, part, at)
);
CREATE INDEX tidings_states_at ON tidings_states (at);

-- What happened within a minute at an endpoint, or at all of them (''). The columns of
-- the histograms are the numbers of durations up to a bound, see eventlog.Histogram.
CREATE TABLE tidings_series (
	endpoint text NOT NULL,
	minute bigint NOT NULL,
	delivered bigint NOT NULL,
	failed bigint NOT NULL,
	waiting bigint NOT NULL,
	oldest bigint NOT NULL,
	answer_0 integer NOT NULL, answer_1 integer NOT NULL, answer_2 integer NOT NULL,
	answer_3 integer NOT NULL, answer_4 integer NOT NULL, answer_5 integer NOT NULL,
	answer_6 integer NOT NULL, answer_7 integer NOT NULL, answer_8 integer NOT NULL,
	answer_9 integer NOT NULL, answer_10 integer NOT NULL, answer_11 integer NOT NULL,
	delay_0 integer NOT NULL, delay_1 integer NOT NULL, delay_2 integer NOT NULL,
	delay_3 integer NOT NULL, delay_4 integer NOT NULL, delay_5 integer NOT NULL,
	delay_6 integer NOT NULL, delay_7 integer NOT NULL, delay_8 integer NOT NULL,
	delay_9 integer NOT NULL, delay_10 integer NOT NULL, delay_11 integer NOT NULL,
	PRIMARY KEY (endpoint, minute)
);
CREATE INDEX tidings_series_minute ON tidings_series (minute);
