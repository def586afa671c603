package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tidings-dev/tidings/internal/app"
	"github.com/tidings-dev/tidings/internal/config"
	"github.com/tidings-dev/tidings/internal/httpapi"
)

// relaySettings are the settings of commands about a relay.
func relaySettings(s *settings) *settings {
	s.relay = true
	choose(s.flags, new(string), "preset", "the tables of a known application: agent_stack", "agent_stack")
	return s
}

func relayCommand() *cobra.Command {
	cmd, s := serverCommand(&cobra.Command{
		Use:   "relay",
		Short: "Run beside an application: deliver the changes of its tables, and what it publishes",
		Long: `Run beside an application, without resources of its own. Events come from
tables of the application's PostgreSQL database (sources.tables), from
tidings.emit() in its transactions, and from POST /api/v1/events. Triggers that
are missing are installed at the start; see 'tidings attach'.

Without database_url, events are kept in a SQLite database in the data folder.`,
		Example: `  tidings relay --config tidings.yaml
  tidings relay --preset agent_stack --database-url postgres://...`,
	})
	relaySettings(s)
	return cmd
}

// sourceCommand is a command about the tables in a configuration.
func sourceCommand(
	use, short string, run func(ctx context.Context, out io.Writer, cfg config.Config) error,
) *cobra.Command {
	var s *settings
	cmd := &cobra.Command{
		Use: use, Short: short, Args: exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := s.load()
			if err != nil {
				return err
			}
			return run(cmd.Context(), cmd.OutOrStdout(), cfg)
		},
	}
	s = relaySettings(settingsOf(cmd))
	return cmd
}

func attachCommand() *cobra.Command {
	var printOnly, checkOnly bool
	cmd := sourceCommand("attach", "Install the triggers that the configuration asks for",
		func(ctx context.Context, out io.Writer, cfg config.Config) error {
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
			tables, err := app.AttachTables(ctx, cfg)
			if err == nil {
				_, err = fmt.Fprintf(out, "attached: %s\n", strings.Join(tables, ", "))
			}
			return err
		})
	cmd.Long = `Install the triggers that the configuration asks for (sources.tables or preset),
and the tables of the event log, as the role in database_url. It needs CREATE on
the database, or a schema that it owns, TRIGGER on the tables, and SELECT on
those that have parts or whose TRUNCATE is told. It never holds
up the application's writers for more than 3 seconds, and may be run again.`
	cmd.Example = `  tidings attach --config tidings.yaml
  tidings attach --config tidings.yaml --print > attach.sql`
	cmd.Flags().BoolVar(&printOnly, "print", false, "write the SQL instead, for a migration or a DBA")
	cmd.Flags().BoolVar(&checkOnly, "check", false, "print what differs, and exit with 1 if anything does")
	return cmd
}

func detachCommand() *cobra.Command {
	cmd := sourceCommand("detach", "Remove all triggers and functions that attach installed",
		func(ctx context.Context, out io.Writer, cfg config.Config) error {
			tables, err := app.DetachTables(ctx, cfg)
			if err == nil && len(tables) == 0 {
				_, err = fmt.Fprintln(out, "there was nothing to detach")
			} else if err == nil {
				_, err = fmt.Fprintf(out, "detached: %s\n", strings.Join(tables, ", "))
			}
			return err
		})
	cmd.Example = "  tidings detach --config tidings.yaml"
	cmd.Long = `Remove all triggers and functions that attach installed. Events that are not
delivered yet stay in the log.`
	return cmd
}

func tablesCommand() *cobra.Command {
	return operatorCommand(asReader, "tables", "How the tables are doing whose changes a relay tells of",
		"tidings tables", exactly(0),
		func(ctx context.Context, c *client, _ []string) error {
			var page struct{ Items []httpapi.TableState }
			printed, err := c.call(ctx, http.MethodGet, "/webhooks/tables", nil, nil, &page)
			if printed || err != nil {
				return err
			}
			rows := make([][]string, len(page.Items))
			for i, t := range page.Items {
				rows[i] = []string{t.Table, t.Type, t.State, t.Detail}
			}
			if len(rows) == 0 {
				fmt.Fprintln(c.errOut, "no tables")
			}
			return newTable(c.out, column{name: "table", min: 12}, column{name: "type", min: 8},
				column{name: "state"}, column{name: "detail", min: 12, blank: true}).print(rows)
		})
}
