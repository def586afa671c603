package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/tidings-dev/tidings/internal/config"
)

func checkCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "check FILE",
		Short: "Check a configuration file; every problem with line and column",
		Args:  exactly(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, err := config.Load(config.Input{File: args[0]})
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s is valid: %d webhook endpoints\n", args[0], len(cfg.Webhook.Endpoints))
			for _, e := range cfg.Webhook.Endpoints {
				fmt.Fprintf(cmd.OutOrStdout(), "  %s\n", e.Name)
			}
			return nil
		},
	}
}
