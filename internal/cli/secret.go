package cli

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"fmt"

	"github.com/spf13/cobra"
)

const secretBytes = 32 // the size of the HMAC-SHA256 hash

func secretCommand() *cobra.Command {
	var pair bool
	cmd := &cobra.Command{
		Use:   "secret",
		Short: "Generate a secret that signs webhooks",
		Long: `Generate a secret that signs an endpoint's webhooks (Standard Webhooks): one
shared with the receiver (whsec_, HMAC-SHA256), or with --ed25519 a private key
(whsk_) and the public key (whpk_) that receivers verify with.`,
		Example: "  tidings secret\n  tidings secret --ed25519",
		Args:    exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			out := cmd.OutOrStdout()
			if !pair {
				_, err := fmt.Fprintln(out, newSecret())
				return err
			}
			public, private, err := ed25519.GenerateKey(rand.Reader)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(out, "for the endpoint's secret:  whsk_%s\nfor the receiver:           whpk_%s\n",
				base64.StdEncoding.EncodeToString(private), base64.StdEncoding.EncodeToString(public))
			return err
		},
	}
	cmd.Flags().BoolVar(&pair, "ed25519", false, "generate an Ed25519 key pair")
	return cmd
}

// newSecret returns a secret for HMAC-SHA256.
func newSecret() string {
	key := make([]byte, secretBytes)
	_, _ = rand.Read(key) // it never fails
	return "whsec_" + base64.StdEncoding.EncodeToString(key)
}
