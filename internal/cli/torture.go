package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/internal/torture"
)

// secretEnv holds the signing secret for commands that send webhooks themselves.
const secretEnv = "WEBHOOK_SECRET"

func tortureCommand() *cobra.Command {
	var (
		o              torture.Options
		format         string
		asJSON, listed bool
	)
	cmd := &cobra.Command{
		Use: "torture URL", Short: "Test whether a receiver handles everything that can arrive", Args: atMost(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if listed {
				return listCases(cmd.OutOrStdout())
			}
			if len(args) == 0 || o.Secret == "" {
				return &usageError{fmt.Errorf("give the receiver's URL, and its secret as --secret or %s; usage: %s",
					secretEnv, cmd.UseLine())}
			}
			o.URL, o.Format = args[0], tidings.Format(format)
			return runTorture(cmd, o, asJSON)
		},
	}
	cmd.Long = `Send a receiver valid, forged, malformed, repeated, late and slow webhooks, and
say which it handles wrongly and what to do about it. The exit status is 1 if
it handles any of them wrongly, or does not answer at all.

The resources have ids that never occurred before and the type "torture". With
--observe the command also checks what the receiver did: GET of that URL must
return {"handled": ["webhook-id", ...]} with an entry each time the receiver
acted on a webhook. Offer it in tests only.`
	cmd.Example = `  tidings torture http://localhost:3000/webhook --observe http://localhost:3000/handled
  tidings torture http://localhost:3000/webhook --only signatures,duplicate --json`
	f := cmd.Flags()
	f.StringVar(&o.Secret, "secret", os.Getenv(secretEnv), "the receiver's signing `SECRET` ("+secretEnv+")")
	f.Lookup("secret").DefValue = "" // help must not show it
	f.StringVar(&o.Observe, "observe", "", "`URL` that returns the ids of the webhooks that the receiver acted on")
	f.StringVar(&format, "format", string(tidings.Thin),
		"`FORMAT` that the receiver reads: thin, standard or cloudevents")
	f.StringSliceVar(&o.Only, "only", nil, "`CASES` or groups to run")
	positiveDuration(f, &o.AnswerWithin, "answer-within", 2*time.Second, "the longest that a response may take")
	positiveDuration(f, &o.Timeout, "timeout", 15*time.Second, "how long to wait for a response")
	f.BoolVar(&o.Insecure, "insecure", false, "accept any TLS certificate")
	f.BoolVar(&asJSON, "json", false, "print the results as a JSON array")
	f.BoolVar(&listed, "list", false, "list the cases")
	return cmd
}

func listCases(out io.Writer) error {
	var rows [][]string
	for _, c := range torture.Cases() {
		rows = append(rows, []string{c.Group, c.Name, c.About})
	}
	return newTable(out, column{name: "group"}, column{name: "case"},
		column{name: "sends, and expects", min: 20}).print(rows)
}

func runTorture(cmd *cobra.Command, o torture.Options, asJSON bool) error {
	if err := o.Check(); err != nil {
		return &usageError{err}
	}
	out := cmd.OutOrStdout()
	results, failed, unseen := []torture.Result{}, 0, 0
	err := torture.Run(cmd.Context(), o, func(r torture.Result) {
		results = append(results, r)
		switch r.Outcome {
		case torture.Fail:
			failed++
		case torture.Unseen:
			unseen++
		}
		if !asJSON {
			printResult(out, r)
		}
	})
	if err != nil {
		return err
	}
	if asJSON {
		encoder := json.NewEncoder(out)
		encoder.SetEscapeHTML(false)
		encoder.SetIndent("", "  ")
		if err := encoder.Encode(results); err != nil {
			return err
		}
	} else if unseen > 0 {
		fmt.Fprintf(out,
			"\nunseen: answered correctly, but only --observe shows whether the receiver acted correctly\n")
	}
	if failed > 0 {
		return fmt.Errorf("the receiver failed %d of %d cases", failed, len(results))
	}
	return nil
}

func printResult(out io.Writer, r torture.Result) {
	line := fmt.Sprintf("%-10s  %-22s  %-6s  %s", r.Group, r.Case, r.Outcome, r.Finding)
	fmt.Fprintln(out, strings.TrimSpace(line))
	if r.Advice != "" {
		fmt.Fprintf(out, "%44s→ %s\n", "", r.Advice)
	}
}
