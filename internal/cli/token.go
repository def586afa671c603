package cli

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"

	"github.com/spf13/cobra"
)

func tokenCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "token",
		Short: "Make an API token and the hash that the configuration holds of it",
		Args:  exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			token := "tdg_" + rand.Text()
			hash := sha256.Sum256([]byte(token))
			fmt.Fprintf(cmd.OutOrStdout(), `token, shown only here: %s

auth:
  tokens:
    - sha256: %s
      user: you@example.com
      role: user
`, token, hex.EncodeToString(hash[:]))
			return nil
		},
	}
}
