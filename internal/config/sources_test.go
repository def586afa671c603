package config_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tidings-dev/tidings/internal/config"
)

func loadText(t *testing.T, text string, relay bool) (config.Config, error) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "tidings.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, err := config.Load(config.Input{Files: []string{file}, Relay: relay})
	if err != nil {
		err = fmt.Errorf("%s", strings.ReplaceAll(err.Error(), file, "FILE"))
	}
	return cfg, err
}

func TestVocabulary(t *testing.T) {
	t.Parallel()
	const tables = "database_url: postgres://h/shop\nsources: {tables: {public.orders: {type: order}, public.parts: " +
		"{type: order}}}\n"
	for _, test := range []struct {
		text  string
		relay bool
		want  string // valid patterns; after "!", invalid ones
	}{
		{"{}", false, "provider.created !order.created"},
		{"types: {order: , invoice: [paid]}", false, "provider.created order.deleted invoice.paid !invoice.created"},
		{"types: {order: , invoice: [paid]}", true, "order.deleted invoice.* * !provider.created"},
		{tables, true, "order.updated !order.paid"},
		{tables + "types: {order: [paid]}", true, "order.updated order.paid !order.sent"},
		{"database_url: postgres://h/stack\npreset: agent_stack", true, "provider_build.updated !order.created"},
	} {
		cfg, err := loadText(t, test.text, test.relay)
		if err != nil {
			t.Errorf("%s: %v", test.text, err)
			continue
		}
		for pattern := range strings.FieldsSeq(test.want) {
			name, not := strings.CutPrefix(pattern, "!")
			if _, err := cfg.Vocabulary().Parse(name); (err != nil) != not {
				t.Errorf("%s: %s: %v", test.text, pattern, err)
			}
		}
	}
}

func TestProblemsOfARelay(t *testing.T) {
	t.Parallel()
	const database = "database_url: postgres://h/shop\n"
	for _, test := range []struct {
		text  string
		relay bool
		want  string
	}{
		{"{}", true, "FILE:1:1: types: no event types are configured: list tables in sources.tables, or the types " +
			"that programs publish here, such as {order: [created, paid]}"},
		{
			"types: {order: }\nfiles: {max_size: 1MiB}\ncontexts: {}", true,
			"FILE:2:8: files: is a setting of tidings serve: tidings relay has no resources\n" +
				"FILE:3:11: contexts: is a setting of tidings serve: tidings relay has no resources",
		},
		{
			"sources: {poll: 1s}", false,
			"FILE:1:10: sources: is a setting of tidings relay: tidings serve has its own resources",
		},
		{
			"preset: agent_stack", false,
			"FILE:1:9: preset: is a setting of tidings relay: tidings serve has its own resources",
		},
		{database + "preset: agent_stick", true, "FILE:2:9: preset: expected one of agent_stack"},
		{
			"preset: agent_stack", true,
			"FILE:1:9: preset: requires PostgreSQL; set database_url to the application's database",
		},
		{
			"types: {Order: }", true,
			"FILE:1:16: types.Order: expected a name such as order: at most 63 of a-z, 0-9 and _, starting with a letter",
		},
		{
			"types: {order: []}", true,
			"FILE:1:16: types.order: is an empty list; omit the list for created, updated and deleted",
		},
		{"types: {order: [paid, paid, Void]}", true, "FILE:1:23: types.order[1]: duplicate action\n" +
			"FILE:1:29: types.order[2]: expected a name such as order: at most 63 of a-z, 0-9 and _, starting with a letter"},
		{"types: {provider: }", false, "FILE:1:19: types.provider: is already a resource type"},
		{
			database + "sources: {tables: {orders: {type: order}}}", true,
			"FILE:2:28: sources.tables.orders: expected a schema and a table, such as public.orders",
		},
		{
			database + "sources: {tables: {public.orders: {}}}", true,
			"FILE:2:35: sources.tables.public.orders: type is missing: a row's resource type, such as order",
		},
		{
			database + "sources: {tables: {public.orders: {type: order, watch: [a], ignore: [b, b], truncate: maybe}}}",
			true,
			"FILE:2:35: sources.tables.public.orders: set either watch or ignore, not both\n" +
				"FILE:2:73: sources.tables.public.orders.ignore[1]: is empty or a duplicate; expected a column name\n" +
				"FILE:2:87: sources.tables.public.orders.truncate: expected one of deleted, refuse",
		},
		{
			"types: {order: }\nwebhook: {endpoints: [{url: 'http://h', events: [order.create]}]}", true,
			`FILE:2:50: webhook.endpoints[0].events[0]: pattern "order.create" matches no event; did you mean "order.created"?`,
		},
		{
			"types: {order: }\nauth: {tokens: [{token: 0123456789abcdef, user: '', role: developer}]}", true,
			"FILE:2:49: auth.tokens[0].user: expected the name of the token's user, at most 200 bytes\n" +
				"FILE:2:59: auth.tokens[0].role: expected one of publisher, reader, operator, admin",
		},
	} {
		_, err := loadText(t, test.text, test.relay)
		got := ""
		if err != nil {
			got = err.Error()
		}
		if diff := cmp.Diff(test.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", test.text, diff)
		}
	}
}
