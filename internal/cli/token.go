package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/tidings-dev/tidings/internal/auth"
)

func tokenCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "token",
		Short:   "Generate an API token and its hash for the configuration",
		Example: "  tidings token",
		Args:    exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			secret, hash := auth.NewToken()
			fmt.Fprintf(cmd.OutOrStdout(), `token (shown only once): %s

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
