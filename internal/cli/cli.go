// Package cli implements the command line, one file per command.
package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"regexp"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/tidings-dev/tidings/internal/config"
	"github.com/tidings-dev/tidings/vocabulary"
)

// Main runs the command line of this process and returns its exit code: 0 on
// success, 1 on failure, 2 on a usage error.
func Main() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	root := Command()
	running := false
	watchRun(root, &running)
	cmd, err := root.ExecuteContextC(ctx)
	var problems config.Problems
	var usage *usageError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &problems):
		fmt.Fprintln(os.Stderr, problems)
		if slices.ContainsFunc(problems, isOfFlag) {
			return 2
		}
		return 1
	case errors.As(err, &usage), !running: // cobra rejected the command line
		fmt.Fprintf(os.Stderr, "tidings: %s\nSee '%s --help'.\n", cobraError(err), cmd.CommandPath())
		return 2
	default:
		fmt.Fprintf(os.Stderr, "tidings: %v\n", err)
		return 1
	}
}

func isOfFlag(p config.Problem) bool { return strings.HasPrefix(p.Source, "flag --") }

// watchRun makes a command and its subcommands set running when they start.
func watchRun(cmd *cobra.Command, running *bool) {
	if run := cmd.RunE; run != nil {
		cmd.RunE = func(cmd *cobra.Command, args []string) error {
			*running = true
			return run(cmd, args)
		}
	}
	for _, sub := range cmd.Commands() {
		watchRun(sub, running)
	}
}

// cobraError formats an error on one line; cobra adds lines with suggestions.
func cobraError(err error) string {
	text := err.Error()
	text, suggestions, found := strings.Cut(text, "\n\nDid you mean this?\n\t")
	if found {
		nearest, _, _ := strings.Cut(suggestions, "\n")
		text += fmt.Sprintf("; did you mean %q?", nearest)
	}
	return text
}

// usageError is an error in the command line.
type usageError struct{ error }

func (e *usageError) Unwrap() error { return e.error }

// flagError returns the error without the text of the command line, which may
// contain a token or a password, as in -database-url=URL.
func flagError(err error) error {
	var (
		unknown *pflag.NotExistError
		invalid *pflag.InvalidValueError
		syntax  *pflag.InvalidSyntaxError
		missing *pflag.ValueRequiredError
	)
	switch {
	case errors.As(err, &unknown) && unknown.GetSpecifiedShortnames() != "":
		return fmt.Errorf("unknown flag -%.1s; flags begin with two dashes, as in --config",
			unknown.GetSpecifiedShortnames())
	case errors.As(err, &unknown):
		if name := unknown.GetSpecifiedName(); flagName.MatchString(name) {
			return fmt.Errorf("unknown flag: --%s", name)
		}
		return errors.New("unknown flag")
	case errors.As(err, &invalid) && isOurs(invalid.GetFlag().Value):
		return fmt.Errorf("flag --%s: %w", invalid.GetFlag().Name, invalid.Unwrap())
	case errors.As(err, &invalid):
		return fmt.Errorf("flag --%s expects a value of type %s", invalid.GetFlag().Name,
			invalid.GetFlag().Value.Type())
	case errors.As(err, &missing):
		return fmt.Errorf("flag --%s needs a value", missing.GetFlag().Name)
	case errors.As(err, &syntax):
		return errors.New("write flags as --name=VALUE or --name VALUE")
	}
	return err
}

// isOurs reports whether the errors of a flag's value say what is expected, without the value.
func isOurs(value pflag.Value) bool {
	switch value.(type) {
	case *choice, *interval:
		return true
	}
	return false
}

var flagName = regexp.MustCompile(`^[a-z][a-z-]*$`)

// Command returns the root command. [Main] runs it; man pages are generated from it.
func Command() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "tidings",
		Short: "Notify other systems whenever a resource changes",
		Long: `Notify other systems whenever a resource changes.

Commands that inspect or operate a server take its address from --url or
TIDINGS_URL, and the token from --token, TIDINGS_TOKEN or the admin-token file
in --data-dir. Exit codes: 0 on success, 1 on failure, 2 on a usage error.`,
		Example: `  tidings demo
  tidings serve --config tidings.yaml
  tidings endpoints --check`,
		Version:       version,
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	cmd.SetVersionTemplate(versionText() + "\n")
	cmd.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return &usageError{flagError(err)} })
	for _, group := range []struct {
		id, title string
		commands  []*cobra.Command
	}{
		{"run", "Run:", []*cobra.Command{
			demoCommand(), serveCommand(), relayCommand(), migrateCommand(), attachCommand(), detachCommand(),
		}},
		{"inspect", "Inspect:", []*cobra.Command{
			endpointsCommand(), eventsCommand(), explainCommand(), attemptsCommand(), parkedCommand(), replaysCommand(),
			problemsCommand(), statusCommand(), tablesCommand(), keysCommand(),
		}},
		{"operate", "Operate:", []*cobra.Command{
			redeliverCommand(), replayCommand(), reloadCommand(), emitCommand(),
		}},
		{"develop", "Develop:", []*cobra.Command{
			listenCommand(), triggerCommand(), tortureCommand(), checkCommand(), tokenCommand(), secretCommand(),
			benchCommand(), versionCommand(),
		}},
	} {
		cmd.AddGroup(&cobra.Group{ID: group.id, Title: group.title})
		for _, c := range group.commands {
			c.GroupID = group.id
			cmd.AddCommand(c)
		}
	}
	addCompletions(cmd)
	cmd.SetHelpCommandGroupID("develop")
	cmd.SetCompletionCommandGroupID("develop")
	checkTopics(cmd)
	return cmd
}

// checkTopics makes cobra's commands help and completion reject a command or shell that does
// not exist.
func checkTopics(root *cobra.Command) {
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	for _, cmd := range root.Commands() {
		switch cmd.Name() {
		case "help":
			cmd.Args = func(_ *cobra.Command, args []string) error {
				_, rest, err := root.Find(args)
				if err == nil && len(rest) > 0 {
					err = fmt.Errorf("unknown command %q", strings.Join(args, " "))
				}
				if err != nil {
					return &usageError{err}
				}
				return nil
			}
		case "completion":
			cmd.Args, cmd.Example = exactly(0), "  tidings completion bash"
			cmd.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
			for _, shell := range cmd.Commands() {
				shell.Example = "  " + shell.CommandPath()
			}
		}
	}
}

func exactly(n int) cobra.PositionalArgs { return validArgs(cobra.ExactArgs(n)) }

func atLeast(n int) cobra.PositionalArgs { return validArgs(cobra.MinimumNArgs(n)) }

func atMost(n int) cobra.PositionalArgs { return validArgs(cobra.MaximumNArgs(n)) }

// validArgs turns an error of check into a usage error, and rejects empty arguments.
func validArgs(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if err := check(cmd, args); err != nil {
			var commands []string
			for _, sub := range cmd.Commands() {
				commands = append(commands, sub.Name())
			}
			if nearest := vocabulary.Nearest(strings.Join(args[:min(len(args), 1)], ""), commands); nearest != "" {
				return &usageError{fmt.Errorf("%w; did you mean '%s %s'?", err, cmd.CommandPath(), nearest)}
			}
			return &usageError{fmt.Errorf("%w; usage: %s", err, cmd.UseLine())}
		}
		return notEmpty(cmd.Flags(), args)
	}
}

// notEmpty rejects empty flags and arguments, such as an unset variable in a script:
// an empty filter must not mean everything.
func notEmpty(flags *pflag.FlagSet, args []string) (err error) {
	isBlank := func(text string) bool { return strings.TrimSpace(text) == "" }
	if slices.ContainsFunc(args, isBlank) {
		return &usageError{errors.New("an argument is empty")}
	}
	flags.Visit(func(f *pflag.Flag) {
		empty := isBlank(f.Value.String())
		if list, ok := f.Value.(pflag.SliceValue); ok {
			empty = len(list.GetSlice()) == 0 || slices.ContainsFunc(list.GetSlice(), isBlank)
		}
		if empty && err == nil {
			err = &usageError{fmt.Errorf("flag --%s is empty or has an empty part; omit it", f.Name)}
		}
	})
	return err
}
