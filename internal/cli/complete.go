package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/tidings-dev/tidings/operator"
	"github.com/tidings-dev/tidings/vocabulary"
)

// choice is a flag value that must be one of several words.
type choice struct {
	words []string
	value *string
}

const choiceType = "word"

func (v *choice) String() string { return *v.value }
func (v *choice) Type() string   { return choiceType }

func (v *choice) Set(text string) error {
	if text != "" && !slices.Contains(v.words, text) { // [notEmpty] rejects an empty value
		return fmt.Errorf("expected one of %s; did you mean %q?", strings.Join(v.words, ", "),
			vocabulary.Nearest(text, v.words))
	}
	*v.value = text
	return nil
}

// choose adds a flag whose value must be one of several words.
func choose(f *pflag.FlagSet, value *string, name, usage string, words ...string) {
	f.Var(&choice{words, value}, name, usage)
}

func complete(cmd *cobra.Command, flag string, with cobra.CompletionFunc) {
	_ = cmd.RegisterFlagCompletionFunc(flag, with) // the flag exists and has no completion
}

const completionTime = 2 * time.Second

// names returns a completion with the items of an API list.
func names[T any](path string, query url.Values, name func(*T) string) cobra.CompletionFunc {
	return func(cmd *cobra.Command, _ []string, typed string) ([]string, cobra.ShellCompDirective) {
		ctx, cancel := context.WithTimeout(cmd.Context(), completionTime)
		defer cancel()
		value := func(flag string) string { return cmd.Flag(flag).Value.String() }
		c := &client{url: value("url"), token: value("token"), dataDir: value("data-dir")}
		var p operator.Page[*T]
		text, err := c.request(ctx, http.MethodGet, path, query, nil)
		if err != nil || json.Unmarshal(text, &p) != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp // the command itself reports the error
		}
		var found []string
		for _, item := range p.Items {
			if text := name(item); strings.HasPrefix(text, typed) && !slices.Contains(found, text) {
				found = append(found, text)
			}
		}
		return found, cobra.ShellCompDirectiveNoFileComp
	}
}

const recentEvents = 1000

var (
	endpointNames = names("/webhooks/endpoints", nil, func(e *operator.Endpoint) string { return e.Name })
	replayIDs     = names("/webhooks/replays", nil, func(r *operator.Replay) string { return r.ID })
	positions     = names("/webhooks/events", nil, func(e *operator.Event) string {
		return strconv.FormatInt(e.Sequence, 10)
	})
	recentNames = names("/webhooks/events", url.Values{"limit": {strconv.Itoa(recentEvents)}},
		func(e *operator.Event) string { return e.Event })
)

// eventPatterns completes a list of patterns with the types of recent events.
func eventPatterns(cmd *cobra.Command, _ []string, typed string) ([]string, cobra.ShellCompDirective) {
	before := typed[:strings.LastIndexByte(typed, ',')+1]
	var found []string
	events, _ := recentNames(cmd, nil, "")
	for _, event := range events {
		typ, _, _ := strings.Cut(event, ".")
		for _, text := range []string{event, typ + ".*"} {
			if strings.HasPrefix(text, typed[len(before):]) {
				found = append(found, before+text)
			}
		}
	}
	slices.Sort(found)
	return slices.Compact(found), cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveNoSpace
}

// completions maps the placeholder of an argument or flag in its usage to its completion.
var completions = map[string]cobra.CompletionFunc{
	"NAME": endpointNames, "ID": replayIDs, "EVENT": positions, "PATTERNS": eventPatterns,
	"FILE": nil, "FOLDER": nil, // completed by the shell
}

// addCompletions sets the completions of a command and its subcommands.
func addCompletions(cmd *cobra.Command) {
	for _, sub := range cmd.Commands() {
		addCompletions(sub)
	}
	remote := cmd.Flags().Lookup("url") != nil
	of := func(word string) (cobra.CompletionFunc, bool) {
		with, known := completions[word]
		if known && with == nil {
			return nil, false
		}
		if !known || !remote {
			with = cobra.NoFileCompletions
		}
		return with, true
	}
	words := strings.Fields(strings.NewReplacer("[", "", "]", "", ".", "").Replace(cmd.Use))
	cmd.ValidArgsFunction = func(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
		if len(args)+1 >= len(words) {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		if with, own := of(words[len(args)+1]); own {
			return with(cmd, args, typed)
		}
		return nil, cobra.ShellCompDirectiveDefault
	}
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		word, _ := pflag.UnquoteUsage(f)
		with, own := of(word)
		if one, ok := f.Value.(*choice); ok {
			with, own = cobra.FixedCompletions(one.words, cobra.ShellCompDirectiveNoFileComp), true
		}
		if own {
			complete(cmd, f.Name, with)
		}
	})
}
