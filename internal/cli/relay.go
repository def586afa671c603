package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tidings-dev/tidings/internal/app"
	"github.com/tidings-dev/tidings/internal/config"
	"github.com/tidings-dev/tidings/internal/httpapi"
)

// relaySettings adds the settings of a relay.
func relaySettings(s *settings) *settings {
	s.relay = true
	choose(s.flags, new(string), "preset", "use the tables of a known application: agent_stack", "agent_stack")
	return s
}

func relayCommand() *cobra.Command {
	cmd, s := serverCommand(&cobra.Command{
		Use:   "relay",
		Short: "Run beside an application and deliver its table changes and published events",
		Long: `Run beside an application, without resources of its own. Events come from
tables of the application's PostgreSQL database (sources.tables), from
tidings.emit() in its transactions, and from POST /api/v1/events. Missing
triggers are installed at startup; see 'tidings attach'.

Without database_url, events are kept in a SQLite database in the data directory.`,
		Example: `  tidings relay --config tidings.yaml
  tidings relay --preset agent_stack --database-url postgres://...`,
	})
	relaySettings(s)
	return cmd
}

// sourceCommand returns a command that works on the tables in a configuration.
func sourceCommand(
	use, short string, run func(ctx context.Context, cmd *cobra.Command, cfg config.Config) error,
) *cobra.Command {
	var s *settings
	cmd := &cobra.Command{
		Use: use, Short: short, Args: exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := s.load()
			if err != nil {
				return err
			}
			return run(cmd.Context(), cmd, cfg)
		},
	}
	s = relaySettings(settingsOf(cmd))
	return cmd
}

// waiting prints which table a command waits for.
func waiting(cmd *cobra.Command) func(message string) {
	return func(message string) { fmt.Fprintln(cmd.ErrOrStderr(), message) }
}

func attachCommand() *cobra.Command {
	var printOnly, checkOnly bool
	cmd := sourceCommand("attach", "Install the configured triggers",
		func(ctx context.Context, cmd *cobra.Command, cfg config.Config) error {
			out := cmd.OutOrStdout()
			switch {
			case printOnly && checkOnly:
				return &usageError{errors.New("give either --print or --check, not both")}
			case printOnly:
				text, err := app.AttachSQL(ctx, cfg)
				if err == nil {
					_, err = io.WriteString(out, text)
				}
				return err
			case checkOnly:
				found, err := app.CheckTables(ctx, cfg)
				if err != nil {
					return err
				}
				for _, finding := range found {
					fmt.Fprintln(out, finding)
				}
				if len(found) > 0 {
					return errors.New("the database differs from the configuration: run 'tidings attach'")
				}
				_, err = fmt.Fprintln(out, "all triggers are in place")
				return err
			}
			tables, err := app.AttachTables(ctx, cfg, waiting(cmd))
			if err == nil {
				_, err = fmt.Fprintf(out, "attached: %s\n", strings.Join(tables, ", "))
			}
			return err
		})
	cmd.Long = `Install the configured triggers (sources.tables or preset) and the tables of the
event log, as the role in database_url. The role needs CREATE on the database or
a schema that it owns, TRIGGER on the tables, and SELECT on tables that have
parts or report TRUNCATE. The command blocks the application's writers for at
most 3 seconds, and can be run again. While a table is locked, it reports by
whom, and retries for up to 5 minutes in all.`
	cmd.Example = `  tidings attach --config tidings.yaml
  tidings attach --config tidings.yaml --print > attach.sql`
	cmd.Flags().BoolVar(&printOnly, "print", false, "print the SQL instead, for a migration or a DBA")
	cmd.Flags().BoolVar(&checkOnly, "check", false, "print the differences, and exit with 1 if there are any")
	return cmd
}

func detachCommand() *cobra.Command {
	cmd := sourceCommand("detach", "Remove all triggers and functions that attach installed",
		func(ctx context.Context, cmd *cobra.Command, cfg config.Config) error {
			out := cmd.OutOrStdout()
			tables, err := app.DetachTables(ctx, cfg, waiting(cmd))
			if err == nil && len(tables) == 0 {
				_, err = fmt.Fprintln(out, "nothing to detach")
			} else if err == nil {
				_, err = fmt.Fprintf(out, "detached: %s\n", strings.Join(tables, ", "))
			}
			return err
		})
	cmd.Example = "  tidings detach --config tidings.yaml"
	cmd.Long = `Remove all triggers and functions that attach installed. Undelivered events stay
in the log.`
	return cmd
}

func tablesCommand() *cobra.Command {
	var check bool
	cmd := operatorCommand(asReader, "tables", "Show the state of a relay's tables",
		"tidings tables --check", exactly(0),
		func(ctx context.Context, c *client, _ []string) error {
			text, err := c.request(ctx, http.MethodGet, "/webhooks/tables", nil, nil)
			if isMissing(err) {
				text, err = []byte(`{"items":[]}`), nil // only a relay on PostgreSQL watches tables
			}
			if err != nil {
				return err
			}
			var page struct{ Items []httpapi.TableState }
			if json.Unmarshal(text, &page) != nil || page.Items == nil {
				return c.foreign("the response is not a list")
			}
			if err := printTables(c, text, page.Items); err != nil || !check {
				return err
			}
			if wrong := notAttached(page.Items); len(wrong) > 0 {
				return fmt.Errorf("not attached as configured: %s", strings.Join(wrong, ", "))
			}
			return nil
		})
	cmd.Long = `Show the state of the tables whose changes become events. "drifted" means that
something differs from the configuration but changes still become events;
"broken" means that some or all do not. The last column lists the periods of the
last 30 days in which changes may have become no events, newest first.`
	cmd.Flags().BoolVar(&check, "check", false, "exit with 1 unless all tables are attached as configured")
	return cmd
}

func printTables(c *client, text []byte, tables []httpapi.TableState) error {
	if c.json {
		_, err := c.out.Write(append(bytes.TrimSpace(text), '\n'))
		return err
	}
	rows := make([][]string, len(tables))
	for i, t := range tables {
		gaps := make([]string, len(t.Gaps))
		for n, g := range t.Gaps {
			gaps[n] = fmt.Sprintf("%s to %s: %s (rows reported again: %d; deleted rows are unknown)",
				g.Since.UTC().Format(time.RFC3339), g.Until.UTC().Format(time.RFC3339), g.Reason, g.Recovered)
		}
		rows[i] = []string{t.Table, t.Type, t.State, t.Detail, strings.Join(gaps, "; ")}
	}
	if len(rows) == 0 {
		fmt.Fprintln(c.errOut, "no tables: this server watches none")
	}
	return newTable(c.out, column{name: "table", min: 12}, column{name: "type", min: 8}, column{name: "state"},
		column{name: "detail", min: 12, blank: true}, column{name: "gaps", min: 12, blank: true}).print(rows)
}

// notAttached returns the names of the tables that are not attached as configured.
func notAttached(tables []httpapi.TableState) (names []string) {
	for _, t := range tables {
		if t.State != "attached" {
			names = append(names, t.Table)
		}
	}
	return names
}

// warnOfTables warns on standard error if tables of a relay are not attached as
// configured: their changes may be missing at the endpoints.
func warnOfTables(ctx context.Context, c *client) {
	var page struct{ Items []httpapi.TableState }
	text, err := c.request(ctx, http.MethodGet, "/webhooks/tables", nil, nil)
	if err != nil || json.Unmarshal(text, &page) != nil {
		return
	}
	if wrong := notAttached(page.Items); len(wrong) > 0 {
		fmt.Fprintf(c.errOut, "warning: not attached as configured: %s; see 'tidings tables'\n", strings.Join(wrong, ", "))
	}
}
