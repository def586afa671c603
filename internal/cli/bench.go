package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"runtime"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/internal/bench"
	"github.com/tidings-dev/tidings/internal/pgurl"
)

func benchCommand() *cobra.Command {
	o := bench.Options{Logger: slog.New(slog.DiscardHandler)}
	var format string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "bench",
		Short: "Measure how fast events reach endpoints on this machine",
		Long: `Measure how fast events reach endpoints on this machine. First a log of events
drains to a receiver in a separate process; for comparison, a bare HTTP client
sends it as many requests. Then events are committed at a steady rate, to
measure the time from commit to arrival.

The database is SQLite in a temporary folder, or an empty PostgreSQL database.`,
		Example: "  tidings bench --events 10000 --endpoints 2",
		Args:    exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			o.Format = tidings.Format(format)
			if o.DatabaseURL != "" {
				if _, err := pgurl.Parse(o.DatabaseURL); err != nil {
					return &usageError{fmt.Errorf("--database-url: %w", err)}
				}
				o.DatabaseURL = pgurl.Plain(o.DatabaseURL)
			}
			if err := o.Check(); err != nil {
				return &usageError{err}
			}
			receiver, err := startReceiver(cmd.Context(), o)
			if err != nil {
				return err
			}
			defer receiver.stop()
			o.Receiver = receiver.url
			result, err := bench.Run(cmd.Context(), o)
			if err != nil {
				return err
			}
			if asJSON {
				e := json.NewEncoder(cmd.OutOrStdout())
				e.SetIndent("", "  ")
				return e.Encode(result)
			}
			return printBench(cmd.OutOrStdout(), o, result)
		},
	}
	f := cmd.Flags()
	f.IntVar(&o.Events, "events", 50_000, "number of events to drain")
	f.IntVar(&o.Endpoints, "endpoints", 1, "number of endpoints that each event goes to")
	f.IntVar(&o.InFlight, "in-flight", 16, "concurrent requests per endpoint")
	format = "thin"
	choose(f, &format, "format", "thin, standard or cloudevents", "thin", "standard", "cloudevents")
	duration(f, &o.Delay, "delay", 0, "time that the receiver takes to respond")
	f.Float64Var(&o.Failures, "failures", 0, "share of requests that get a 500 response, from 0 to 1")
	f.IntVar(&o.Rate, "rate", 200, "events per second in the steady part")
	duration(f, &o.Steady, "steady", 10*time.Second, "duration of the steady part; 0 skips it")
	f.StringVar(&o.DatabaseURL, "database-url", "", "`URL` of an empty PostgreSQL database (default SQLite)")
	f.BoolVar(&o.NoHistory, "no-history", false, "do not record attempts")
	f.BoolVar(&asJSON, "json", false, "print JSON")
	cmd.AddCommand(receiverCommand())
	return cmd
}

func printBench(out io.Writer, o bench.Options, r *bench.Result) error {
	database := "SQLite"
	if o.DatabaseURL != "" {
		database = "PostgreSQL"
	}
	fields := [][2]string{
		{"workload", fmt.Sprintf("%d events to %d endpoints, %d in flight, %s, on %s; %s, %d CPUs", o.Events, o.Endpoints,
			o.InFlight, o.Format, database, runtime.Version(), runtime.NumCPU())},
		{"delivered", fmt.Sprintf("%.0f per second, %.2f of a bare client's %.0f", r.DeliveredPerSecond,
			r.OfBareClient, r.BarePerSecond)},
		{"CPU", fmt.Sprintf("%.1f µs per delivery, bare client %.1f", r.CPUPerDelivery, r.BareCPUPerRequest)},
		{"failed attempts", fmt.Sprint(r.Failed)},
	}
	if r.Steady > 0 {
		fields = append(fields,
			[2]string{"commit to arrival", fmt.Sprintf("p50 %.2f ms, p99 %.2f ms, of %d at %d per second", r.P50,
				r.P99, r.Steady, o.Rate)})
	}
	return printFields(out, append(fields, [2]string{"peak memory", fmt.Sprintf("%.0f MiB", r.PeakMemory)}))
}

// receiverProcess is a receiver in a separate process, so that its CPU time and
// memory are not counted as the sender's.
type receiverProcess struct {
	url  string
	stop func()
}

func startReceiver(ctx context.Context, o bench.Options) (*receiverProcess, error) {
	program, err := os.Executable()
	if err != nil {
		return nil, err
	}
	return runReceiver(ctx, program, "bench", "receiver", fmt.Sprintf("--delay=%s", o.Delay),
		fmt.Sprintf("--failures=%g", o.Failures))
}

func receiverCommand() *cobra.Command {
	var delay time.Duration
	var failures float64
	cmd := &cobra.Command{
		Use: "receiver", Short: "Run the receiver for bench until standard input closes", Args: exactly(0), Hidden: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return bench.Receive(cmd.Context(), cmd.InOrStdin(), cmd.OutOrStdout(), delay, failures)
		},
	}
	cmd.Flags().DurationVar(&delay, "delay", 0, "")
	cmd.Flags().Float64Var(&failures, "failures", 0, "")
	return cmd
}

// waitFor waits until a receiver responds.
func waitFor(ctx context.Context, url string) error {
	for {
		response, err := http.Get(url + "/stats")
		if err == nil {
			return response.Body.Close()
		}
		select {
		case <-ctx.Done():
			return errors.Join(ctx.Err(), err)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

func firstLine(text string) string {
	line, _, _ := strings.Cut(text, "\n")
	return line
}
