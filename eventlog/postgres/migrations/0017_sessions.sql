-- +goose Up
-- Who is signed in to the console: hashes of cookies, and proofs of tokens.
CREATE TABLE tidings_sessions (
	hash text PRIMARY KEY,
	proof text NOT NULL,
	actor text NOT NULL,
	user_id text NOT NULL,
	role text NOT NULL,
	address text NOT NULL,
	since bigint NOT NULL,
	used bigint NOT NULL
);
