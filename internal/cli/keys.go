package cli

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tidings-dev/tidings/internal/app"
	"github.com/tidings-dev/tidings/internal/resource"
)

func keysCommand() *cobra.Command {
	cmd := operatorCommand(asAdmin, "keys", "List the keys that encrypt secrets in the database",
		"tidings keys", exactly(0), listKeys)
	rotate := operatorCommand(asAdmin, "rotate", "Re-encrypt all secrets in the database with the first key",
		"tidings keys rotate", exactly(0), rotateKeys)
	rotate.Long = `Re-encrypt all secrets in the database with the first of encryption_keys, and
report which keys are no longer needed. Servers keep working meanwhile. If it is
interrupted, run it again.`
	cmd.AddCommand(rotate, forgetKeysCommand())
	return cmd
}

// errNoKeys is returned by a command about the keys of a relay.
var errNoKeys = errors.New("this is a relay, which has no keys: it stores no secrets in its database")

func fetchKeys(ctx context.Context, c *client) (items []*resource.Key, printed bool, err error) {
	var page resource.Items[*resource.Key]
	printed, err = c.call(ctx, http.MethodGet, "/keys", nil, nil, &page)
	if isMissing(err) {
		err = errNoKeys
	}
	return page.Items, printed, err
}

func listKeys(ctx context.Context, c *client, _ []string) error {
	items, printed, err := fetchKeys(ctx, c)
	if printed || err != nil {
		return err
	}
	rows := make([][]string, len(items))
	for i, k := range items {
		setting := "on another server"
		if k.Setting != nil {
			setting = *k.Setting
		}
		rows[i] = []string{k.ID, k.State, strconv.FormatInt(k.Secrets, 10), setting}
	}
	if len(rows) == 0 {
		fmt.Fprintln(c.errOut, "no keys")
	}
	return newTable(c.out, column{name: "key"}, column{name: "state"}, column{name: "secrets"},
		column{name: "setting", min: 12}).print(rows)
}

// Secrets written with another key in the meantime need another round.
const rotationRounds = 3

func rotateKeys(ctx context.Context, c *client, _ []string) error {
	quiet := *c
	quiet.json = false
	var rotated int64
	var unreadable []string
	for range rotationRounds {
		rounded, left, owners, err := rotateOnce(ctx, &quiet, rotated)
		rotated, unreadable = rounded, owners
		if errors.Is(err, errNoKeys) {
			return err
		} else if err != nil {
			return fmt.Errorf("%w (%d secrets re-encrypted; run it again to continue)", err, rotated)
		}
		if left == 0 {
			break
		}
	}
	items, printed, err := fetchKeys(ctx, c)
	if printed || err != nil {
		return err
	}
	fmt.Fprintf(c.out, "secrets re-encrypted with the first key: %d\n", rotated)
	var stay []string
	for _, k := range items {
		switch {
		case k.State == "unused":
			fmt.Fprintf(c.out, "key %s is no longer needed: remove it (%s) and restart the servers\n", k.ID,
				*k.Setting)
		case k.State != "writes":
			stay = append(stay, fmt.Sprintf("%s (%d secrets)", k.ID, k.Secrets))
		}
	}
	switch {
	case len(unreadable) > 0:
		return fmt.Errorf("no key decrypts the secrets of %s; set them again, or add their key to encryption_keys",
			strings.Join(unreadable, ", "))
	case len(stay) > 0:
		return fmt.Errorf("still needed: %s; is another server running with a different first key?",
			strings.Join(stay, ", "))
	}
	return nil
}

// rotateOnce makes one pass over all secrets.
func rotateOnce(ctx context.Context, c *client, before int64) (rotated, left int64, unreadable []string, err error) {
	rotated = before
	query := url.Values{}
	for {
		var r resource.Rotation
		if _, err := c.call(ctx, http.MethodPost, "/keys/rotate", query, nil, &r); isMissing(err) {
			return rotated, left, unreadable, errNoKeys
		} else if err != nil {
			return rotated, left, unreadable, err
		}
		rotated, left = rotated+r.Rotated, r.Left
		unreadable = slices.Compact(slices.Sorted(slices.Values(append(unreadable, r.Unreadable...))))
		if isTerminal(c.errOut) {
			bar(c.errOut, float64(rotated)/float64(max(rotated+left, 1)),
				fmt.Sprintf("%d encrypted, %d left", rotated, left))
		} else {
			fmt.Fprintf(c.errOut, "%d encrypted, %d left\n", rotated, left)
		}
		if r.Next == "" {
			break
		}
		query.Set("after", r.Next)
	}
	if isTerminal(c.errOut) {
		fmt.Fprintln(c.errOut)
	}
	return rotated, left, unreadable, nil
}

// lostOwners is the maximum number of owners of lost secrets to list.
const lostOwners = 100

func forgetKeysCommand() *cobra.Command {
	var s *settings
	cmd := &cobra.Command{
		Use:   "forget",
		Short: "Let the server start without a lost key; what it encrypted stays unreadable",
		Long: `Let the server start without a lost key that encrypted secrets in its database.
Nothing is deleted: these secrets stay unreadable until they are set again, or
until the key is found and added to encryption_keys.`,
		Example: "  tidings keys forget --config tidings.yaml",
		Args:    exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := s.load()
			if err != nil {
				s.relay = true
				if _, asRelay := s.load(); asRelay == nil {
					return errNoKeys
				}
				return err
			}
			log, _ := logger(cmd.ErrOrStderr(), cfg.Log)
			lost, owners, err := app.ForgetKeys(cmd.Context(), cfg, log, lostOwners)
			if err != nil {
				return err
			}
			out := cmd.OutOrStdout()
			fmt.Fprintf(out, "the server can start without the lost keys; unreadable secrets: %d\n", lost)
			for _, owner := range owners {
				fmt.Fprintf(out, "set again: %s\n", owner)
			}
			if len(owners) == lostOwners {
				fmt.Fprintln(out, "and possibly others")
			}
			return nil
		},
	}
	s = settingsOf(cmd)
	return cmd
}
