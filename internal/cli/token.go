package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/tidings-dev/tidings/internal/auth"
)

func tokenCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "token",
		Short:   "Make an API token and the hash that the configuration holds of it",
		Example: "  tidings token",
		Args:    exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			secret, hash := auth.NewToken()
			fmt.Fprintf(cmd.OutOrStdout(), `token, shown only here: %s

auth:
  tokens:
    - sha256: %s
      user: you@example.com
      role: user
`, secret, hash)
			return nil
		},
	}
}
