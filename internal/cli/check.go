package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tidings-dev/tidings/internal/config"
)

func checkCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "check FILE...",
		Short: "Check configuration files; every problem with line and column",
		Args:  atLeast(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, err := config.Load(config.Input{Files: args})
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s: valid, %d webhook endpoints\n", strings.Join(args, " and "), len(cfg.Webhook.Endpoints))
			for _, e := range cfg.Webhook.Endpoints {
				fmt.Fprintf(cmd.OutOrStdout(), "  %s\n", e.Name)
			}
			return nil
		},
	}
}
