package store

import (
	"bytes"
	"context"
	"database/sql"
	"fmt"
	"slices"
	"strings"

	"github.com/uptrace/bun"
	"github.com/uptrace/bun/dialect"
)

// Place identifies an encrypted value: a table and the primary key of a row.
type Place struct {
	Table string
	Key   []string
}

// Secret is an encrypted value in the database.
type Secret struct {
	Place
	Sealed []byte
}

// secretColumns lists all columns with encrypted values, and the primary keys
// of their tables.
var secretColumns = []struct {
	table, column string
	key           []string
}{
	{"connectors", "client_secret", []string{"id"}},
	{"model_providers", "api_key", []string{"id"}},
	{"variables", "value", []string{"owner_id", "name"}},
}

// table returns the qualified name of a table.
func (s *Store) table(name string) string { return s.dialect.schema + name }

// SecretsWithout returns up to limit encrypted values without the prefix,
// ordered by table and primary key. After is the last one of the previous call;
// the zero value starts from the beginning.
func (s *Store) SecretsWithout(
	ctx context.Context, prefix []byte, after Place, limit int,
) (secrets []Secret, err error) {
	err = s.reading(ctx, func(ctx context.Context, conn *sql.Conn) (err error) {
		secrets, err = s.secretsWithout(ctx, conn, prefix, after, limit)
		return err
	})
	return secrets, err
}

func (s *Store) secretsWithout(
	ctx context.Context, conn bun.IConn, prefix []byte, after Place, limit int,
) (secrets []Secret, err error) {
	for _, c := range secretColumns {
		if c.table < after.Table {
			continue
		}
		key := strings.Join(c.key, ", ")
		query := fmt.Sprintf("SELECT %s, %s AS sealed FROM %s WHERE %[2]s IS NOT NULL", key, c.column, s.table(c.table))
		var args []any
		if len(prefix) > 0 {
			query += fmt.Sprintf(" AND substr(%s, 1, %d) <> ?", c.column, len(prefix))
			args = append(args, prefix)
		}
		if c.table == after.Table {
			query += fmt.Sprintf(" AND (%s) > (%s)", key, strings.Join(slices.Repeat([]string{"?"}, len(c.key)), ", "))
			for _, k := range after.Key {
				args = append(args, k)
			}
		}
		query += fmt.Sprintf(" ORDER BY %s LIMIT %d", key, limit-len(secrets))
		var rows []map[string]any
		if err := s.statement(conn).NewRaw(query, args...).Scan(ctx, &rows); err != nil {
			return nil, fmt.Errorf("read encrypted values: %w", asStoreError(err))
		}
		for _, row := range rows {
			secret := Secret{Place: Place{Table: c.table}, Sealed: bytes.Clone(row["sealed"].([]byte))}
			for _, k := range c.key {
				secret.Key = append(secret.Key, fmt.Sprintf("%s", row[k]))
			}
			secrets = append(secrets, secret)
		}
		if len(secrets) == limit {
			break
		}
	}
	return secrets, nil
}

// CountSecrets counts the encrypted values with the prefix; all of them if it
// is empty.
func (s *Store) CountSecrets(ctx context.Context, prefix []byte) (total int64, err error) {
	err = s.reading(ctx, func(ctx context.Context, conn *sql.Conn) (err error) {
		total, err = s.countSecrets(ctx, conn, prefix)
		return err
	})
	return total, err
}

// CountSecrets is [Store.CountSecrets] within the transaction.
func (tx *Tx) CountSecrets(ctx context.Context, prefix []byte) (int64, error) {
	return tx.store.countSecrets(ctx, tx.tx, prefix)
}

func (s *Store) countSecrets(ctx context.Context, conn bun.IConn, prefix []byte) (total int64, err error) {
	for _, c := range secretColumns {
		query, args := fmt.Sprintf("SELECT count(*) FROM %s WHERE %s IS NOT NULL", s.table(c.table), c.column),
			[]any(nil)
		if len(prefix) > 0 {
			query += fmt.Sprintf(" AND substr(%s, 1, %d) = ?", c.column, len(prefix))
			args = append(args, prefix)
		}
		var n int64
		if err := s.statement(conn).NewRaw(query, args...).Scan(ctx, &n); err != nil {
			return 0, fmt.Errorf("count encrypted values: %w", asStoreError(err))
		}
		total += n
	}
	return total, nil
}

// ReplaceSecret replaces the encryption of a value unless the value has changed
// since it was read. There is no event for it.
func (tx *Tx) ReplaceSecret(ctx context.Context, secret Secret, sealed []byte) (replaced bool, err error) {
	for _, c := range secretColumns {
		if c.table != secret.Table {
			continue
		}
		var query strings.Builder
		fmt.Fprintf(&query, "UPDATE %s SET %s = ? WHERE %[2]s = ?", tx.store.table(c.table), c.column)
		args := []any{sealed, secret.Sealed}
		for i, k := range c.key {
			query.WriteString(" AND " + k + " = ?")
			args = append(args, secret.Key[i])
		}
		result, err := tx.statement().NewRaw(query.String(), args...).Exec(ctx)
		if err != nil {
			return false, fmt.Errorf("write encrypted value: %w", asStoreError(err))
		}
		n, err := result.RowsAffected()
		return n == 1, err
	}
	return false, fmt.Errorf("%s has no encrypted values", secret.Table)
}

// Keys returns the ids of the keys registered in this database.
func (s *Store) Keys(ctx context.Context) (ids []string, err error) {
	query := "SELECT id FROM " + s.table("encryption_keys") + " ORDER BY created_at, id"
	err = s.reading(ctx, func(ctx context.Context, conn *sql.Conn) error {
		return s.statement(conn).NewRaw(query).Scan(ctx, &ids)
	})
	if err != nil {
		return nil, fmt.Errorf("read ids of encryption keys: %w", asStoreError(err))
	}
	return ids, nil
}

// AddKey registers a key as allowed to encrypt values.
func (tx *Tx) AddKey(ctx context.Context, id string) error {
	query := "INSERT INTO " + tx.store.table("encryption_keys") +
		" (id, created_at) VALUES (?, ?) ON CONFLICT DO NOTHING"
	_, err := tx.statement().NewRaw(query, id, tx.Now).Exec(ctx)
	if err != nil {
		return fmt.Errorf("register encryption key: %w", asStoreError(err))
	}
	return nil
}

// HoldKey keeps a key from being removed until the end of the transaction. It
// returns [ErrNotFound] if it was removed.
func (tx *Tx) HoldKey(ctx context.Context, id string) error {
	query := "SELECT id FROM " + tx.store.table("encryption_keys") + " WHERE id = ?"
	if tx.store.dialect.Name() == dialect.PG {
		query += " FOR KEY SHARE"
	}
	return notFound(tx.statement().NewRaw(query, id).Scan(ctx, &id))
}

// RemoveKey unregisters a key once all transactions that hold it have ended.
func (tx *Tx) RemoveKey(ctx context.Context, id string) error {
	query := "DELETE FROM " + tx.store.table("encryption_keys") + " WHERE id = ?"
	if _, err := tx.statement().NewRaw(query, id).Exec(ctx); err != nil {
		return fmt.Errorf("remove encryption key: %w", asStoreError(err))
	}
	return nil
}
